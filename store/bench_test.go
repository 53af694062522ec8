package store

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func BenchmarkOpen(b *testing.B) {
	cfg := inDir(b)
	require.NoError(b, open(b, cfg).Close())
	for b.Loop() {
		s, err := Open(context.Background(), cfg)
		require.NoError(b, err)
		b.StopTimer()
		require.NoError(b, s.Close())
		b.StartTimer()
	}
}

func BenchmarkPut(b *testing.B) {
	s := open(b, inDir(b))
	value := make([]byte, 500)
	for b.Loop() {
		_, err := s.Put(context.Background(), "key", value)
		require.NoError(b, err)
	}
}

func BenchmarkPutParallel(b *testing.B) {
	s := open(b, inDir(b))
	value := make([]byte, 500)
	var n atomic.Int64
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Put(context.Background(), fmt.Sprint(n.Add(1)%10_000), value); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkGet(b *testing.B) {
	s := open(b, inDir(b))
	put(b, s, "key", "value")
	for b.Loop() {
		_, err := s.Get(context.Background(), "key")
		require.NoError(b, err)
	}
}

// manyPages holds 100,000 machines.
func manyPages() pages {
	entries := make([]Entry, 100_000)
	for i := range entries {
		entries[i].Key = fmt.Sprintf("machine/%08d", i)
	}
	return newPages(entries)
}

func BenchmarkMirrorGet(b *testing.B) {
	m := new(Mirror)
	m.current.Store(&snapshot{pages: manyPages()})
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, ok := m.Get("machine/00077777"); !ok {
				b.Error("not found")
			}
		}
	})
}

// Sixty changes at a time, as they come when machines boot together.
func BenchmarkMirrorSet(b *testing.B) {
	p := manyPages()
	b.ReportAllocs()
	for i := 0; b.Loop(); {
		d := p.draft()
		for range 60 {
			d.set(Entry{Key: fmt.Sprintf("machine/%08d", i*7919%100_000)})
			i++
		}
		p = d.pages
	}
}
