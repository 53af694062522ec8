package tftp

import (
	"fmt"
	"io"
	"sync"
)

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
	p := make([]byte, headerSize+room)
	return &p
}

func (b *bufferPool) put(p *[]byte) {
	pool, _ := b.pick(len(*p) - headerSize)
	pool.Put(p)
}

// chunk holds the part of a file that is being sent: one read serves a window or
// more. It may move backwards, for a window that starts over.
type chunk struct {
	file   *io.SectionReader
	pool   *bufferPool
	window int // bytes of one window
	buf    *[]byte
	start  int64
	length int
}

// packet returns room for a header followed by the n bytes of the file at off.
// The room is the end of the bytes before: who writes a header puts them back.
func (c *chunk) packet(off int64, n int) ([]byte, error) {
	if c.buf == nil {
		c.buf = c.pool.get(int(min(int64(c.window), c.file.Size())))
	}
	if off < c.start || off+int64(n) > c.start+int64(c.length) {
		if err := c.fill(off); err != nil {
			return nil, err
		}
	}
	at := int(off - c.start)
	return (*c.buf)[at : at+headerSize+n], nil
}

func (c *chunk) fill(off int64) error {
	room := (*c.buf)[headerSize:]
	want := int(min(int64(len(room)), c.file.Size()-off))
	n, err := c.file.ReadAt(room[:want], off)
	if n < want {
		return fmt.Errorf("read %d bytes at %d, got %d: %w", want, off, n, err)
	}
	c.start, c.length = off, want
	return nil
}

func (c *chunk) close() {
	if c.buf != nil {
		c.pool.put(c.buf)
		c.buf = nil
	}
}
