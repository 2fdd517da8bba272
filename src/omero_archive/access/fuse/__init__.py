"""The archive as a file system of the kernel, spoken directly on /dev/fuse."""
