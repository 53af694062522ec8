package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLostStoreIsTold(t *testing.T) {
	for name, tt := range map[string]struct {
		dirs []string
		told bool
	}{
		"new": {nil, false}, "as it should be": {[]string{"pki", "store"}, false}, "store only": {[]string{"store"}, false}, "keys only": {[]string{"pki"}, true},
	} {
		dir := t.TempDir()
		for _, d := range tt.dirs {
			require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o700))
		}
		var log bytes.Buffer
		warnOfLostStore(t.Context(), filepath.Join(dir, "store"), filepath.Join(dir, "pki"), slog.New(slog.NewTextHandler(&log, nil)))
		require.Equal(t, tt.told, bytes.Contains(log.Bytes(), []byte("the store is gone")), name)
	}
}
