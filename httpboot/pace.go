package httpboot

import (
	"fmt"
	"time"
)

// How slow a client may be (T7). It must take something at least every
// stallTimeout, so that a slow but steady download of any length ends well; and
// from patience on it must have taken the minimum rate on average, or whoever
// takes a byte now and then holds a connection for ever.
const (
	stallTimeout   = 60 * time.Second
	patience       = 60 * time.Second
	defaultMinRate = 4000 // bytes per second, 32 kbit/s: 400 MB take more than a day
)

// pace is how fast a client has to be.
type pace struct {
	begun time.Time
	rate  int64 // bytes per second, on average
}

func (s *Server) newPace(now time.Time) pace {
	if s.MinRate > 0 {
		return pace{now, s.MinRate}
	}
	return pace{now, defaultMinRate}
}

// deadline is until when a client that has taken so many bytes must have taken
// more.
func (p pace) deadline(now time.Time, taken int64) time.Time {
	end := p.begun.Add(max(patience, time.Duration(float64(taken)/float64(p.rate)*float64(time.Second))))
	if stalls := now.Add(stallTimeout); stalls.Before(end) {
		return stalls
	}
	return end
}

// held takes time off the client's bill.
func (p *pace) held(d time.Duration) { p.begun = p.begun.Add(d) }

// tooSlow is what the operator is told.
func (p pace) tooSlow(taken int64, err error) error {
	return fmt.Errorf("it took %d bytes and then nothing for %s, or less than %d bytes a second for longer than %s: %w",
		taken, stallTimeout, p.rate, patience, err)
}
