package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
)

// Where etcd keeps its files below the store's directory.
const (
	memberDir = "member"
	walDir    = "member/wal"
	dbFile    = "member/snap/db"
)

// checkMember refuses an etcd directory in states that etcd itself accepts or
// explains badly. A directory that etcd has not been started in is fine, and so
// is a torn last record: that is what kill -9 leaves.
func checkMember(dir string, lg *zap.Logger) error {
	db := filepath.Join(dir, dbFile)
	if _, err := os.Stat(db); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	logged, err := lastLogged(filepath.Join(dir, walDir))
	if err != nil {
		return err
	}
	applied, err := lastApplied(db, lg)
	if err != nil {
		return err
	}
	// etcd would start, and drop new writes until it has counted up to the
	// database again: it takes them for entries that it has applied already.
	if applied > logged {
		return fmt.Errorf("it is damaged: its log ends at entry %d and its database at %d: "+
			"restore it from a backup", logged, applied)
	}
	return nil
}

// lastApplied returns the index of the last log entry that the database holds.
func lastApplied(db string, lg *zap.Logger) (uint64, error) {
	be := backend.NewDefaultBackend(lg, db)
	applied, _ := schema.ReadConsistentIndex(be.ReadTx())
	wrote := schema.ReadStorageVersion(be.ReadTx())
	if err := be.Close(); err != nil {
		return 0, fmt.Errorf("close %s: %w", db, err)
	}
	if wrote != nil && (wrote.Major > version.V3_6.Major ||
		wrote.Major == version.V3_6.Major && wrote.Minor > version.V3_6.Minor) {
		return 0, fmt.Errorf("it is in the storage format of etcd %s, this build knows formats up to %s: "+
			"install the nestboot that wrote it or restore an older backup", wrote, version.V3_6)
	}
	return applied, nil
}

// lastLogged returns the index of the last entry in the newest segment of the
// log. A segment's name says which entry comes first in it.
func lastLogged(dir string) (uint64, error) {
	names := segments(dir)
	if len(names) == 0 {
		return 0, fmt.Errorf("it is damaged: %s holds no log: restore it from a backup", dir)
	}
	newest := filepath.Join(dir, names[len(names)-1])
	var seq, last uint64
	if _, err := fmt.Sscanf(filepath.Base(newest), "%016x-%016x.wal", &seq, &last); err != nil {
		return 0, fmt.Errorf("it is damaged: %s is not the name of a log segment: %w", newest, err)
	}
	if last > 0 {
		last--
	}
	f, err := os.Open(newest)
	if err != nil {
		return 0, fmt.Errorf("read the log: %w", err)
	}
	defer f.Close()
	last, err = scanLog(wal.NewDecoder(logFile{f}), last)
	if err != nil {
		return 0, fmt.Errorf("it is damaged: restore it from a backup: read %s: %w", newest, err)
	}
	return last, nil
}

// scanLog returns the index of the last entry that decoder yields, or last.
func scanLog(decoder wal.Decoder, last uint64) (uint64, error) {
	var rec walpb.Record
	for {
		err := decoder.Decode(&rec)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return last, nil
		}
		if err != nil {
			return 0, err
		}
		switch rec.Type {
		case wal.CrcType:
			decoder.UpdateCRC(rec.Crc)
		case wal.EntryType:
			entry := wal.MustUnmarshalEntry(rec.Data)
			last = entry.Index
		}
	}
}

// logFile is an open segment as wal.NewDecoder wants it.
type logFile struct{ *os.File }

func (f logFile) FileInfo() (fs.FileInfo, error) { return f.Stat() }

// segments returns the names of the log segments in dir, the oldest first. A
// directory that can't be read has none.
func segments(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".wal") {
			names = append(names, e.Name())
		}
	}
	return names
}

// hasMember reports whether dir holds both halves of an etcd: database and log.
func hasMember(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, dbFile))
	return err == nil && len(segments(filepath.Join(dir, walDir))) > 0
}
