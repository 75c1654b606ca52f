package history

import "os"

// unlock does nothing: on Windows the lock goes with f.
func unlock(*os.File) {}
