package main

import (
	"errors"
	"io/fs"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nestboot/nestboot/tftp"
)

// tftpMetrics counts transfers. Labels are few, and known beforehand.
type tftpMetrics struct {
	active      prometheus.Gauge
	transfers   *prometheus.CounterVec
	bytes       prometheus.Counter
	retransmits prometheus.Counter
	seconds     prometheus.Histogram
	windows     *prometheus.CounterVec
}

func newTFTPMetrics(r prometheus.Registerer) *tftpMetrics {
	m := &tftpMetrics{
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "nestboot_tftp_active", Help: "TFTP requests that are being answered.",
		}),
		transfers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nestboot_tftp_transfers_total", Help: "TFTP requests by result: " +
				"done, size-probe, not-found, refused, no-answer, aborted (by the client), failed.",
		}, []string{"result"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nestboot_tftp_bytes_total", Help: "Bytes of files that clients have confirmed.",
		}),
		retransmits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nestboot_tftp_retransmits_total", Help: "Datagrams that were sent more than once.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "nestboot_tftp_seconds", Help: "Duration of complete transfers.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}),
		windows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nestboot_tftp_window_total", Help: "Complete transfers by the window that was agreed, in blocks, rounded up to a power of two.",
		}, []string{"blocks"}),
	}
	r.MustRegister(m.active, m.transfers, m.bytes, m.retransmits, m.seconds, m.windows)
	return m
}

// observe counts a request that has ended.
func (m *tftpMetrics) observe(t tftp.Transfer) {
	m.active.Dec()
	m.transfers.WithLabelValues(tftpResult(t.Err)).Inc()
	m.bytes.Add(float64(t.Bytes))
	m.retransmits.Add(float64(t.Retransmits))
	if t.Err != nil {
		return
	}
	m.seconds.Observe(t.Duration.Seconds())
	window := 1
	for window < t.Window {
		window *= 2
	}
	m.windows.WithLabelValues(strconv.Itoa(window)).Inc()
}

func tftpResult(err error) string {
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, tftp.ErrSizeProbe):
		return "size-probe"
	case errors.Is(err, tftp.ErrAborted):
		return "aborted"
	case errors.Is(err, tftp.ErrNoAnswer):
		return "no-answer"
	case errors.Is(err, fs.ErrNotExist):
		return "not-found"
	case errors.As(err, new(*tftp.Refusal)), errors.Is(err, fs.ErrPermission):
		return "refused"
	default:
		return "failed"
	}
}
