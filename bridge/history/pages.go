package history

// pageSize is the size of the file's pages in bytes, on every system.
const pageSize = 4096
