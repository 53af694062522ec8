package tftp

import (
	"fmt"
	"io"
	"sync"
)

// Memory is a file that lies in memory whole: blocks are sent from where it
// lies. A [Handler] that has one returns io.NewSectionReader(m, 0, len(m)).
type Memory []byte

// ReadAt is that of [io.ReaderAt].
func (m Memory) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(m)) {
		return 0, io.EOF
	}
	n := copy(p, m[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

const (
	smallChunk = 32 << 10
	largeChunk = maxWindowBytes
)

// bufferPool lends the memory of chunks. Two sizes, so that a thousand lock-step
// clients do not hold the memory of a thousand large windows.
type bufferPool struct {
	small, large sync.Pool
}

func (b *bufferPool) pick(size int) (*sync.Pool, int) {
	if size <= smallChunk {
		return &b.small, smallChunk
	}
	return &b.large, largeChunk
}

func (b *bufferPool) get(size int) *[]byte {
	pool, room := b.pick(size)
	if p, ok := pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, room)
	return &p
}

func (b *bufferPool) put(p *[]byte) {
	pool, _ := b.pick(len(*p))
	pool.Put(p)
}

// source is where a transfer gets its bytes: memory, or a chunk of a file that
// is read ahead, a window or more at once. A chunk may move backwards, for a
// window that starts over. Files are not mapped: what a disk can't read would
// end the program instead of the transfer.
type source struct {
	file   *io.SectionReader
	memory []byte // nil: read from file
	pool   *bufferPool
	window int // bytes of one window
	buf    *[]byte
	start  int64
	length int
}

func newSource(file *io.SectionReader, window int, pool *bufferPool) source {
	c := source{file: file, window: window, pool: pool}
	if r, off, n := file.Outer(); n > 0 {
		if m, ok := r.(Memory); ok && off+n <= int64(len(m)) {
			c.memory = m[off : off+n]
		}
	}
	return c
}

// has reports whether bytes returns the n bytes at off.
func (c *source) has(off int64, n int) bool {
	return n == 0 || c.memory != nil || off >= c.start && off+int64(n) <= c.start+int64(c.length)
}

// bytes are the n bytes at off, which the caller does not change.
func (c *source) bytes(off int64, n int) []byte {
	if c.memory != nil {
		return c.memory[off : off+int64(n)]
	}
	if n == 0 {
		return nil
	}
	at := int(off - c.start)
	return (*c.buf)[at : at+n]
}

// fill reads a chunk that begins at off. It may take as long as the disk does.
func (c *source) fill(off int64) error {
	if c.buf == nil {
		c.buf = c.pool.get(int(min(int64(c.window), c.file.Size())))
	}
	want := int(min(int64(len(*c.buf)), c.file.Size()-off))
	n, err := c.file.ReadAt((*c.buf)[:want], off)
	if n < want {
		return fmt.Errorf("read %d bytes at %d, got %d: %w", want, off, n, err)
	}
	c.start, c.length = off, want
	return nil
}

func (c *source) close() {
	if c.buf != nil {
		c.pool.put(c.buf)
		c.buf, c.length = nil, 0
	}
}
