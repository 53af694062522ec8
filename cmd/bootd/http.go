package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nestboot/nestboot/httpboot"
)

// HTTP says how files are shared out among machines. Only files count: scripts
// and configs are small. A change needs a restart.
type HTTP struct {
	// RatePerMachine and RateTotal cap what files leave at, in bits per second: a
	// number with k, M or G behind it. A machine is told by its UUID where it has
	// asked for its script on the same connection, by its address otherwise.
	// Default: no caps.
	RatePerMachine BitRate `yaml:"rate_per_machine"`
	RateTotal      BitRate `yaml:"rate_total"`
	// MinRate is what a client must take of a file on average, once a minute has
	// gone, or it is cut off. Default: 32k.
	MinRate BitRate `yaml:"min_rate"`
	// MaxBooting is how many machines may boot at a time, 1 to 100000; others wait
	// for their turn in iPXE. Default: 500.
	MaxBooting int `yaml:"max_booting"`
}

// BitRate is bits per second, as an operator writes them.
type BitRate string

const maxBitRate = 1e12

// bytes is the rate in bytes per second; 0 for none.
func (r BitRate) bytes() (int64, error) {
	if r == "" {
		return 0, nil
	}
	number, unit := string(r), 1.0
	for suffix, u := range map[string]float64{"k": 1e3, "M": 1e6, "G": 1e9} {
		if n, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = n, u
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 40)
	if bits := float64(n) * unit; err == nil && bits >= 8000 && bits <= maxBitRate {
		return int64(bits / 8), nil
	}
	return 0, fmt.Errorf("%q is not a rate from 8k to 1000G bits per second, like 200M", string(r))
}

func (h HTTP) validate() []error {
	var errs []error
	var rates []int64
	for _, r := range []struct {
		field string
		rate  BitRate
	}{{"rate_per_machine", h.RatePerMachine}, {"rate_total", h.RateTotal}, {"min_rate", h.MinRate}} {
		n, err := r.rate.bytes()
		if rates = append(rates, n); err != nil {
			errs = append(errs, fmt.Errorf("http.%s: %w", r.field, err))
		}
	}
	for i, field := range []string{"rate_per_machine", "rate_total"} {
		if rates[i] > 0 && rates[i] <= rates[2] {
			errs = append(errs, fmt.Errorf("http.min_rate: %s is as much as %s lets a machine have: it would be cut off", h.MinRate, field))
		}
	}
	if h.MaxBooting < 1 || h.MaxBooting > 100_000 {
		errs = append(errs, fmt.Errorf("http.max_booting: %d is not between 1 and 100000", h.MaxBooting))
	}
	return errs
}

// configure puts the settings, which are valid, into the server.
func (h HTTP) configure(s *httpboot.Server) {
	s.Rates.PerMachine, _ = h.RatePerMachine.bytes()
	s.Rates.Total, _ = h.RateTotal.bytes()
	s.MinRate, _ = h.MinRate.bytes()
	s.MaxBooting = h.MaxBooting
}

// httpMetrics are what the server does just now. What it has done is counted by
// events.
func httpMetrics(s *httpboot.Server) []prometheus.Collector {
	gauge := func(name, help string, value func(httpboot.Stats) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value(s.Stats())) })
	}
	return []prometheus.Collector{
		gauge("nestboot_http_connections", "Open connections of machines, of all ports.", func(s httpboot.Stats) int { return s.Connections }),
		gauge("nestboot_http_downloads", "Files that are being sent.", func(s httpboot.Stats) int { return s.Downloads }),
		gauge("nestboot_http_booting", "Machines that have a place: their script was handed out and they lack files.", func(s httpboot.Stats) int { return s.Booting }),
		gauge("nestboot_http_waiting", "Machines that wait for a place.", func(s httpboot.Stats) int { return s.Waiting }),
	}
}
