/* Reads, opens and looks at files as programs do, one kind of work a run; prints the seconds that it took.
 *
 *   drop FILE...               write nothing, print nothing: empty the page cache of the files
 *   sequential FILE [warm]     from the beginning to the end, in pieces of 1 MiB; warm: once more, only that is timed
 *   halves FILE                two processes at once, each one half
 *   random FILE COUNT [warm]   4 KiB at COUNT random places; warm: the whole file was read before
 *   opens FILE COUNT           open and close, COUNT times
 *   stats LIST [warm]          lstat of each path in the file LIST; warm: once more, only that is timed
 *   names DIRECTORY [warm]     all names in a directory; warm: once more
 *   wait FILE                  opens FILE, however long that takes; prints when it was open (seconds since 1970)
 *
 * access_client.py does the same, for machines without a C compiler. */

#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 1 << 20, PAGE = 4096 };

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int opened(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        err(1, "%s", path);
    return fd;
}

static void read_part(const char *path, off_t at, off_t end)
{
    static char *piece;
    int fd = opened(path);
    if (piece == NULL && posix_memalign((void **)&piece, PAGE, PIECE) != 0)
        errx(1, "no memory");
    while (at < end) {
        ssize_t got = pread(fd, piece, PIECE, at);
        if (got <= 0)
            err(1, "%s at %lld", path, (long long)at);
        at += got;
    }
    close(fd);
}

static off_t size_of(const char *path)
{
    struct stat seen;
    if (stat(path, &seen) != 0)
        err(1, "%s", path);
    return seen.st_size;
}

static void sequential(const char *path)
{
    read_part(path, 0, size_of(path));
}

static void halves(const char *path)
{
    off_t size = size_of(path), half = size / 2 / PAGE * PAGE;
    pid_t child = fork();
    int status;
    if (child == 0) {
        read_part(path, half, size);
        _exit(0);
    }
    read_part(path, 0, half);
    if (waitpid(child, &status, 0) != child || status != 0)
        errx(1, "the other reader failed");
}

static void random_places(const char *path, long count)
{
    uint64_t state = 88172645463325252u, pages = size_of(path) / PAGE;
    char page[PAGE];
    int fd = opened(path);
    for (; count > 0; count--) {
        state ^= state << 13; /* xorshift64: the same places in every run */
        state ^= state >> 7;
        state ^= state << 17;
        if (pread(fd, page, PAGE, (off_t)(state % pages) * PAGE) != PAGE)
            err(1, "%s", path);
    }
    close(fd);
}

static void opens(const char *path, long count)
{
    for (; count > 0; count--)
        close(opened(path));
}

static void stats(char **paths)
{
    struct stat seen;
    for (; *paths != NULL; paths++)
        if (lstat(*paths, &seen) != 0)
            err(1, "%s", *paths);
}

static char **lines_of(const char *list)
{
    off_t size = size_of(list), at = 0;
    char *text = malloc(size + 1), **lines;
    int fd = opened(list);
    size_t count = 0;
    while (at < size) {
        ssize_t got = read(fd, text + at, size - at);
        if (got <= 0)
            err(1, "%s", list);
        at += got;
    }
    text[size] = 0;
    for (at = 0; at < size; at++)
        count += text[at] == '\n';
    lines = calloc(count + 1, sizeof *lines);
    count = 0;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
        lines[count++] = line;
    return lines;
}

static void names(const char *path)
{
    DIR *directory = opendir(path);
    if (directory == NULL)
        err(1, "%s", path);
    while (readdir(directory) != NULL)
        ;
    closedir(directory);
}

int main(int argc, char **argv)
{
    const char *work = argc > 2 ? argv[1] : "";
    int is_warm = argc > 2 && strcmp(argv[argc - 1], "warm") == 0;
    double started;

    if (strcmp(work, "drop") == 0) {
        for (int i = 2; i < argc; i++) {
            int fd = opened(argv[i]);
            if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
                errx(1, "%s", argv[i]);
            close(fd);
        }
        return 0;
    }
    if (strcmp(work, "wait") == 0) {
        int fd = opened(argv[2]);
        printf("%.6f\n", now(CLOCK_REALTIME));
        close(fd);
        return 0;
    }
    if (strcmp(work, "stats") == 0) {
        char **paths = lines_of(argv[2]);
        if (is_warm)
            stats(paths);
        started = now(CLOCK_MONOTONIC);
        stats(paths);
    } else if (strcmp(work, "names") == 0) {
        if (is_warm)
            names(argv[2]);
        started = now(CLOCK_MONOTONIC);
        names(argv[2]);
    } else {
        if (is_warm)
            sequential(argv[2]);
        started = now(CLOCK_MONOTONIC);
        if (strcmp(work, "sequential") == 0)
            sequential(argv[2]);
        else if (strcmp(work, "halves") == 0)
            halves(argv[2]);
        else if (strcmp(work, "random") == 0)
            random_places(argv[2], atol(argv[3]));
        else if (strcmp(work, "opens") == 0)
            opens(argv[2], atol(argv[3]));
        else
            errx(2, "unknown work: %s", work);
    }
    printf("%.9f\n", now(CLOCK_MONOTONIC) - started);
    return 0;
}
