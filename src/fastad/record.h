/* Recording state of the calling thread: 0 on, 1 off, and 2 on, 3 off while a trace is recorded,
 * which takes down every operation, also those without a gradient.  fad_trace_id names the trace
 * that this thread records, and 0 is none.  fad_watch: this thread looks for nan and inf; its
 * fad_grad_off is then 4 where it would be 0.  fad_quiet: a sweep runs, which knows itself where
 * its operations come from. */
#ifndef FASTAD_RECORD_H
#define FASTAD_RECORD_H

#if defined(_MSC_VER)
static __declspec(thread) int fad_grad_off = 0, fad_trace_id = 0, fad_watch = 0, fad_quiet = 0;
#elif defined(__ELF__)
/* The plain model costs a call per read; this library is loaded once and needs 16 bytes. */
static __thread int fad_grad_off __attribute__((tls_model("initial-exec"))) = 0;
static __thread int fad_trace_id __attribute__((tls_model("initial-exec"))) = 0;
static __thread int fad_watch __attribute__((tls_model("initial-exec"))) = 0;
static __thread int fad_quiet __attribute__((tls_model("initial-exec"))) = 0;
#else
static __thread int fad_grad_off = 0, fad_trace_id = 0, fad_watch = 0, fad_quiet = 0;
#endif

#endif
