package main

import (
	"net"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nestboot/nestboot/boot"
)

// metrics counts events. Labels are stages and codes only: few, and known
// beforehand.
type metrics struct {
	registry *prometheus.Registry
	events   *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
	tftp     *tftpMetrics
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nestboot_boot_stage_total", Help: "Steps of boots by stage and code; an empty code is success.",
		}, []string{"stage", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "nestboot_boot_stage_seconds", Help: "Duration of the steps of boots.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}, []string{"stage"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nestboot_boot_stage_bytes_total", Help: "Bytes sent to machines by stage.",
		}, []string{"stage"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "nestboot_build_info", Help: "Always 1; the labels tell the version.", ConstLabels: prometheus.Labels{"version": version()},
	})
	info.Set(1)
	m.tftp = newTFTPMetrics(m.registry)
	m.registry.MustRegister(m.events, m.seconds, m.bytes, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// observe counts an event.
func (m *metrics) observe(e boot.Event) {
	code := e.Code
	if code == "" && e.Error != "" {
		code = "error"
	}
	stage := string(e.Stage)
	m.events.WithLabelValues(stage, code).Inc()
	if e.Duration > 0 {
		m.seconds.WithLabelValues(stage).Observe(e.Duration.Seconds())
	}
	m.bytes.WithLabelValues(stage).Add(float64(e.Bytes))
}

// handler serves metrics, health and profiles on the loopback listener. ready
// returns why bootd is not ready, or nil.
func (m *metrics) handler(ready func() error) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return loopbackOnly(mux)
}

// loopbackOnly refuses what a web page makes a browser on this host ask under
// a name of its own (DNS rebinding).
func loopbackOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		host := req.Host
		if bare, _, err := net.SplitHostPort(host); err == nil {
			host = bare
		}
		if host != "localhost" && !net.ParseIP(strings.Trim(host, "[]")).IsLoopback() {
			http.Error(w, "ask for a loopback address", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, req)
	})
}
