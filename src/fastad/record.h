/* Recording state of the calling thread. */
#ifndef FASTAD_RECORD_H
#define FASTAD_RECORD_H

#if defined(_MSC_VER)
static __declspec(thread) int fad_grad_off = 0;
#elif defined(__ELF__)
/* The plain model costs a call per read; this library is loaded once and needs four bytes. */
static __thread int fad_grad_off __attribute__((tls_model("initial-exec"))) = 0;
#else
static __thread int fad_grad_off = 0;
#endif

#endif
