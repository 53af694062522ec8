package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.uber.org/zap"
)

// filled makes a store with 300 values of 1 kB and closes it.
func filled(t *testing.T) string {
	t.Helper()
	cfg := inDir(t)
	s := open(t, cfg)
	var txn Txn
	for i := range 300 {
		txn.Then = append(txn.Then, Set(fmt.Sprintf("%03d", i), bytes.Repeat([]byte{byte(i%255 + 1)}, 1000)))
	}
	for range 3 {
		_, err := s.Commit(t.Context(), txn)
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	return cfg.Dir
}

// edit changes a file of a store in place. What lies behind the first 2 MB is
// allocated ahead and empty; change gets the rest and returns as much as the
// file shall keep, or all of it.
func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	data := make([]byte, 2<<20)
	_, err = io.ReadFull(f, data)
	require.NoError(t, err)
	changed := change(data)
	_, err = f.WriteAt(changed, 0)
	require.NoError(t, err)
	if len(changed) < len(data) {
		require.NoError(t, f.Truncate(int64(len(changed))))
	}
}

func segment(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, walDir, "*.wal"))
	require.NoError(t, err)
	require.NotEmpty(t, names)
	return names[len(names)-1]
}

// logEnd is where the preallocated, empty part of a log segment begins.
func logEnd(data []byte) int {
	return (len(bytes.TrimRight(data, "\x00")) + 7) &^ 7
}

func garbage(data []byte) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

func TestRefusedDirectories(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		want   string
	}{
		{"database cut", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, dbFile), func(b []byte) []byte { return b[:400_000] })
		}, "if it is damaged restore it"},
		{"database is garbage", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, dbFile), func(b []byte) []byte { garbage(b); return b })
		}, "damaged"},
		{"database pages are garbage", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, dbFile), func(b []byte) []byte { garbage(b[2*os.Getpagesize():]); return b })
		}, "damaged"},
		{"database removed", func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, dbFile)))
		}, "damaged: member/snap/db and member/wal must both be there"},
		{"log removed", func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, walDir)))
		}, "damaged: member/snap/db and member/wal must both be there"},
		{"both removed", func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, memberDir)))
		}, "or remove the whole directory to start empty"},
		{"log cut in half", func(t *testing.T, dir string) {
			edit(t, segment(t, dir), func(b []byte) []byte { return b[:logEnd(b)/2] })
		}, "its log ends at entry"},
		{"log from an older backup", func(t *testing.T, dir string) {
			edit(t, segment(t, dir), func(b []byte) []byte { clear(b[logEnd(b)/2:]); return b })
		}, "its log ends at entry"},
		{"bit flipped in the log", func(t *testing.T, dir string) {
			edit(t, segment(t, dir), func(b []byte) []byte { b[logEnd(b)/2] ^= 1; return b })
		}, "crc mismatch"},
		{"segment renamed", func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(segment(t, dir), filepath.Join(dir, walDir, "x.wal")))
		}, "is not the name of a log segment"},
		{"newer etcd", func(t *testing.T, dir string) {
			be := backend.NewDefaultBackend(zap.NewNop(), filepath.Join(dir, dbFile))
			tx := be.BatchTx()
			tx.LockOutsideApply()
			schema.UnsafeSetStorageVersion(tx, &version.V3_7)
			tx.Unlock()
			require.NoError(t, be.Close())
		}, "storage format of etcd 3.7.0, this build knows formats up to 3.6.0"},
		{"newer format", func(t *testing.T, dir string) {
			writeFile(t, filepath.Join(dir, formatName), "nestboot store 2\n")
		}, "it is in format 2, this nestboot knows format 1: install the nestboot that wrote it"},
		{"damaged format", func(t *testing.T, dir string) {
			writeFile(t, filepath.Join(dir, formatName), "")
		}, "not ours or damaged"},
		{"another etcd", func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, formatName)))
		}, "no FORMAT file and is not empty, member is in it: name an empty directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filled(t)
			test.damage(t, dir)
			before := contents(t, dir)
			start := time.Now()
			_, err := Open(t.Context(), Config{Dir: dir})
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "open store "+dir)
			require.Less(t, time.Since(start), 10*time.Second)
			require.Equal(t, before, contents(t, dir), "a refused directory is left as it was")
			t.Log(err)
		})
	}
}

// contents lists files with their sizes, the database's excepted: opening it to
// look may add a page.
func contents(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	sizes := map[string]int64{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		if info, err := d.Info(); err == nil && !d.IsDir() && d.Name() != "db" {
			sizes[path] = info.Size()
		}
		return nil
	}))
	return sizes
}

func TestAcceptedDirectories(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(t *testing.T, dir string)
	}{
		{"untouched", func(*testing.T, string) {}},
		{"torn last record", func(t *testing.T, dir string) {
			edit(t, segment(t, dir), func(b []byte) []byte {
				b[logEnd(b)] = 200 // the length of a record that never came
				return b
			})
		}},
		{"cut last record", func(t *testing.T, dir string) {
			edit(t, segment(t, dir), func(b []byte) []byte {
				end := logEnd(b)
				b[end], b[end+8] = 200, 1
				return b[:end+64]
			})
		}},
		{"database emptied, log complete", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, dbFile), func([]byte) []byte { return nil })
		}},
		{"open to others", func(t *testing.T, dir string) {
			require.NoError(t, os.Chmod(dir, 0o755))
		}},
		{"temporary file of a crash", func(t *testing.T, dir string) {
			writeFile(t, filepath.Join(dir, ".FORMAT1234"), "nestb")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filled(t)
			test.change(t, dir)
			s := open(t, Config{Dir: dir})
			entries, err := s.List(t.Context(), "")
			require.NoError(t, err)
			require.Len(t, entries, 300)
			require.Equal(t, bytes.Repeat([]byte{43}, 1000), entries[42].Value)
			put(t, s, "a", "1")
			info, err := os.Stat(dir)
			require.NoError(t, err)
			require.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
		})
	}
}

// The first start was cut off after etcd had made its database and before Open
// returned: nothing can be lost, so the next start begins again.
func TestUnfinishedFirstStart(t *testing.T) {
	dir := filled(t)
	writeFile(t, filepath.Join(dir, formatName), "nestboot store 1 unfinished\n")
	require.NoError(t, os.RemoveAll(filepath.Join(dir, walDir)))
	s := open(t, Config{Dir: dir})
	entries, err := s.List(t.Context(), "")
	require.NoError(t, err)
	require.Empty(t, entries)
	text, err := os.ReadFile(filepath.Join(dir, formatName))
	require.NoError(t, err)
	require.Equal(t, "nestboot store 1\n", string(text))
}

func TestT30_DirectoryOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chown(dir, 12345, -1))
	_, err := Open(context.Background(), Config{Dir: dir})
	require.ErrorContains(t, err, "belongs to user id 12345 and this process runs as 0: run as that user or `chown -R 0 "+dir)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "nothing may be made there")
}

func TestNotADirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, "")
	_, err := Open(t.Context(), Config{Dir: file})
	require.ErrorContains(t, err, "not a directory")
}

func TestParseFormat(t *testing.T) {
	for text, want := range map[string]string{
		"nestboot store 1\n":                          "",
		"nestboot store 1":                            "",
		"nestboot store 1 unfinished\n":               "",
		"nestboot store 01\n":                         "not ours",
		"nestboot store 1 \n":                         "not ours",
		"nestboot store 1x\n":                         "not ours",
		"nestboot store\n":                            "not ours",
		"nestboot store 0\n":                          "format 0",
		"nestboot store 99\n":                         "format 99",
		"nestboot store 99999999999999999999999999\n": "not ours",
		"": "not ours",
	} {
		_, err := parseFormat(text)
		if want == "" {
			require.NoError(t, err, text)
		} else {
			require.ErrorContains(t, err, want, text)
		}
	}
}
