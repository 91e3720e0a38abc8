/* Runs a program and kills it, with all its threads, at the entry of its n-th system call: kill_at <n> <result> <program>.
 *
 * Between two system calls nothing of a program is seen outside of it, so these are all the moments that there are. The calls
 * of all threads are counted, not those of the programs that it starts, which go on; with 0 it ends by itself. The number of
 * calls goes into the result, and how it ended, as wait(2) tells. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static const int OPTIONS = PTRACE_O_TRACECLONE | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;

static int is_entry(pid_t thread) {
    struct __ptrace_syscall_info info;
    ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info);
    return info.op == PTRACE_SYSCALL_INFO_ENTRY;
}

int main(int argc, char **argv) {
    if (argc < 4)
        return 2;
    long calls = 0, last = atol(argv[1]);
    int status, end = 0, has_begun = 0;
    pid_t thread, program = fork();
    if (program == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execv(argv[3], argv + 3);
        _exit(127);
    }
    while ((thread = waitpid(-1, &status, __WALL)) > 0) {
        int stop = WSTOPSIG(status), sent = 0;
        if (!WIFSTOPPED(status)) {
            if (thread == program)
                end = status;
            continue;
        }
        if (!has_begun) {
            has_begun = 1;
            ptrace(PTRACE_SETOPTIONS, thread, 0, OPTIONS);
        } else if (stop == (SIGTRAP | 0x80)) {
            if (is_entry(thread) && ++calls == last) {
                kill(program, SIGKILL);
                continue;
            }
        } else if (stop != SIGTRAP && stop != SIGSTOP)
            sent = stop;
        ptrace(PTRACE_SYSCALL, thread, 0, sent);
    }
    FILE *result = fopen(argv[2], "w");
    return !result || fprintf(result, "%ld %d\n", calls, end) < 0 || fclose(result) != 0;
}
