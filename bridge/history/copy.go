package history

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Copy returns a copy of the file of dir as it is now, also while another process writes
// to it: that waits for as long as the copying takes. It lies in the system's directory for
// temporary files, or in dir when there is none, until Close removes it. A damaged file is
// left as it is; the copy has what is sound in it, and [Store.Damaged] tells. Errors:
// fs.ErrNotExist without a file, ErrNewer, ErrLocked, and what the system says.
func Copy(dir string) (s *Store, err error) {
	name := filepath.Join(dir, fileName)
	temp, err := os.MkdirTemp("", copyName)
	if err != nil {
		temp, err = os.MkdirTemp(dir, copyName)
	}
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	s = &Store{dir: temp, origin: name}
	if err := copyFile(s.file(), name); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if _, err := s.ready(false); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// copyFile copies a file between two transactions.
func copyFile(to, from string) (err error) {
	if info, err := os.Stat(from); err != nil {
		return fmt.Errorf("history: %w", err)
	} else if !info.Mode().IsRegular() {
		return fmt.Errorf("history: %s is not a file", from)
	}
	lock, err := openDB(from, true)
	if errors.Is(err, ErrLocked) {
		return err
	}
	var source *os.File
	if err == nil {
		defer lock.close(nil)
		source = lock.f
	} else { // damaged: as much of it as there is
		if source, err = os.Open(from); err != nil {
			return fmt.Errorf("history: %w", err)
		}
		defer source.Close()
	}
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = io.Copy(target, source)
		err = errors.Join(err, target.Close())
	}
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}
