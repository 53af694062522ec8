package artifact

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"runtime/debug"
	"sync"
	"unsafe"
	"weak"

	"golang.org/x/sync/singleflight"
)

const (
	// cacheLimit bounds the rendered files that are kept, in bytes. A file of a
	// set is made in milliseconds, so this only has to hold what a rack asks for
	// at the same time.
	cacheLimit = 64 << 20
	// maxRenders bounds how many files are made at the same time: each takes a
	// processor, and a few times its size in memory.
	maxRenders = 2
)

// fileKey names the bytes of one file of one version of a set.
type fileKey struct {
	version *version
	name    string
}

// cache keeps rendered files, the least recently used ones fall out. Whoever
// asks for a file that is being made waits for it, and a file that fell out
// while it is still being sent is found again: however many slow readers there
// are, memory holds each file once (T4, T7).
type cache struct {
	limit   int64
	flights singleflight.Group
	slots   chan struct{}

	mu      sync.Mutex
	size    int64
	entries map[fileKey]*list.Element // of *cached
	order   *list.List                // the most recently used first
	sent    map[fileKey]sending       // fell out; there as long as somebody holds it
}

type cached struct {
	key  fileKey
	file File
}

// sending is a file that only those who send it keep alive.
type sending struct {
	first  weak.Pointer[byte]
	length int
	sha256 string
}

// file is the file, while anybody holds its bytes.
func (s sending) file() (File, bool) {
	first := s.first.Value()
	if first == nil {
		return File{}, false
	}
	return File{Data: unsafe.Slice(first, s.length), SHA256: s.sha256}, true
}

func newCache(limit int64) *cache {
	return &cache{limit: limit, slots: make(chan struct{}, maxRenders), entries: map[fileKey]*list.Element{}, order: list.New(), sent: map[fileKey]sending{}}
}

// get returns the file, made by render if it is not there. The wait ends with
// ctx; the making goes on for who else waits.
func (c *cache) get(ctx context.Context, key fileKey, render func() ([]byte, error)) (File, error) {
	if f, ok := c.find(key); ok {
		return f, nil
	}
	result := c.flights.DoChan(fmt.Sprintf("%p %s", key.version, key.name), func() (any, error) {
		c.slots <- struct{}{}
		defer func() { <-c.slots }()
		if f, ok := c.find(key); ok { // made while we waited
			return f, nil
		}
		data, err := careful(render)
		if err != nil {
			return File{}, err
		}
		sum := sha256.Sum256(data)
		f := File{Data: data, SHA256: hex.EncodeToString(sum[:])}
		c.add(key, f)
		return f, nil
	})
	select {
	case r := <-result:
		f, _ := r.Val.(File) // it has no other type
		return f, r.Err
	case <-ctx.Done():
		return File{}, fmt.Errorf("wait for %s: %w", key.name, ctx.Err())
	}
}

// careful makes a panic an error: singleflight would repeat it where nothing can
// catch it, and one file that cannot be made must not end all boots.
func careful(render func() ([]byte, error)) (data []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return render()
}

func (c *cache) find(key fileKey) (File, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		f, ok := c.sent[key].file()
		if ok {
			c.keep(key, f)
		}
		return f, ok
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).file, true
}

func (c *cache) add(key fileKey, f File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[key]; ok || key.version.gone.Load() {
		return
	}
	c.keep(key, f)
}

// keep puts a file in front, and lets others fall out.
func (c *cache) keep(key fileKey, f File) {
	delete(c.sent, key)
	c.entries[key] = c.order.PushFront(&cached{key, f})
	c.size += int64(len(f.Data))
	for c.size > c.limit {
		old := c.remove(c.order.Back())
		if data := old.file.Data; len(data) > 0 {
			c.sent[old.key] = sending{weak.Make(&data[0]), len(data), old.file.SHA256}
		}
	}
	maps.DeleteFunc(c.sent, func(_ fileKey, s sending) bool { return s.first.Value() == nil })
}

// forget drops the files of a version that is served no longer.
func (c *cache) forget(v *version) {
	v.gone.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, e := range c.entries {
		if key.version == v {
			c.remove(e)
		}
	}
	maps.DeleteFunc(c.sent, func(key fileKey, _ sending) bool { return key.version == v })
}

func (c *cache) remove(e *list.Element) *cached {
	old := c.order.Remove(e).(*cached)
	delete(c.entries, old.key)
	c.size -= int64(len(old.file.Data))
	return old
}
