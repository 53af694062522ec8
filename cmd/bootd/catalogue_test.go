package main

import (
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/images"
	"github.com/nestboot/nestboot/images/depot"
)

// TestWhatPasses: what a pull would not mend keeps the former catalogue.
func TestWhatPasses(t *testing.T) {
	for err, want := range map[error]bool{
		syscall.EMFILE:     true,
		syscall.EACCES:     true,
		syscall.ENOENT:     false,
		syscall.EIO:        false, // a bad disk counts as damage
		depot.ErrUnknown:   false,
		images.ErrDamaged:  false,
		fs.ErrNotExist:     false,
		syscall.Errno(116): true, // ESTALE
	} {
		require.Equal(t, want, passing(fmt.Errorf("open: %w", &fs.PathError{Op: "open", Path: "x", Err: err})), "%v", err)
	}
}
