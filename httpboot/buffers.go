package httpboot

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	batch      = 256 << 10               // of a file
	batchSpace = batch + batch/piece*128 // and what TLS adds to it
	maxBatches = 128                     // in memory at a time; who comes later does without
)

// A client is sent batches once it has taken promptFor at a good rate, a piece in
// promptPiece or so: more than the kernel buffers for one that takes nothing, lest
// slow clients hold all batches while fast ones go without.
const (
	promptFor   = 4 << 20
	promptPiece = 20 * time.Millisecond
)

// buffers are what bodies are sent from. The zero value is ready.
type buffers struct {
	pieces  sync.Pool
	batches sync.Pool
	inUse   atomic.Int32
}

func (p *buffers) piece() []byte {
	if b, ok := p.pieces.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, piece)
}

func (p *buffers) freePiece(b []byte) { p.pieces.Put(&b) }

// batch is an empty buffer for a batch, nil when there are too many.
func (p *buffers) batch() []byte {
	if p.inUse.Add(1) > maxBatches {
		p.inUse.Add(-1)
		return nil
	}
	if b, ok := p.batches.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, batchSpace)
}

func (p *buffers) freeBatch(b []byte) {
	p.inUse.Add(-1)
	p.batches.Put(&b)
}
