package tftp

import "time"

const (
	initialWait = time.Second // before the first round trip is measured
	minWait     = 20 * time.Millisecond
	maxWait     = 5 * time.Second

	// A silent client is asked at growing intervals: quickly at first, since
	// most often one datagram was lost, then with patience, since firmware that
	// draws a screen or erases flash is deaf for seconds. From 20 ms a factor of
	// 2 (RFC 6298) and 9 retries make 15 s.
	backoff = 2
)

// pacer decides how long to wait for an answer, after RFC 6298.
type pacer struct {
	fixed    time.Duration // the client's own wish (RFC 2349, utimeout), 0 if none
	srtt     time.Duration // smoothed round trip, 0 if none was measured
	rttvar   time.Duration
	timeouts int // since the last measured round trip
}

// wait is how long the current flight may stay without an answer.
func (p *pacer) wait() time.Duration {
	if p.fixed >= time.Second {
		return p.fixed
	}
	d := initialWait
	switch {
	case p.fixed > 0: // by utimeout: a first wait, or all retries were over in no time
		d = p.fixed
	case p.srtt > 0:
		d = max(p.srtt+4*p.rttvar, minWait)
	}
	for n := p.timeouts; n > 0 && d < maxWait; n-- {
		d *= backoff
	}
	return min(d, maxWait)
}

// measured takes the round trip of a flight that was sent once. Flights that
// were sent twice tell nothing (Karn), so the longer wait stays until one did not.
//
// Where an ACK is lost and its client repeats itself before the server does, the
// client's own timer is measured, ten times a round trip or a thousand. RFC 6298
// would take dozens of samples to forget that. Nothing makes a sample too small,
// so one that is far below the others begins anew.
func (p *pacer) measured(rtt time.Duration) {
	p.timeouts = 0
	rtt = max(rtt, 1)
	if p.srtt == 0 || rtt < p.srtt/2 {
		p.srtt, p.rttvar = rtt, rtt/2
		return
	}
	p.rttvar += ((p.srtt - rtt).Abs() - p.rttvar) / 4
	p.srtt += (rtt - p.srtt) / 8
}
