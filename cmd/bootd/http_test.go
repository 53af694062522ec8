package main

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/httpboot"
)

func TestBitRate(t *testing.T) {
	for rate, want := range map[BitRate]int64{"": 0, "8000": 1000, "32k": 4000, "200M": 25_000_000, "10G": 1_250_000_000} {
		got, err := rate.bytes()
		require.NoError(t, err)
		require.Equal(t, want, got, rate)
	}
	for _, rate := range []BitRate{"0", "-1", "fast", "1.5M", "200 M", "200m", "7999", "1001G", "99999999999999999999G", "k", "200MB"} {
		_, err := rate.bytes()
		require.Error(t, err, rate)
	}
}

func TestHTTPSettingsReachTheServer(t *testing.T) {
	h := HTTP{RatePerMachine: "200M", RateTotal: "900M", MinRate: "32k", MaxBooting: 7}
	require.Empty(t, h.validate())
	var s httpboot.Server
	h.configure(&s)
	require.Equal(t, httpboot.Rates{PerMachine: 25_000_000, Total: 112_500_000}, s.Rates)
	require.Equal(t, [2]int64{4000, 7}, [2]int64{s.MinRate, int64(s.MaxBooting)})
	h.MinRate = "200M"
	require.ErrorContains(t, h.validate()[0], "http.min_rate: 200M is as much as rate_per_machine lets a machine have")
}

func TestHTTPMetricsCanBeRead(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(httpMetrics(&httpboot.Server{Now: time.Now})...)
	families, err := r.Gather()
	require.NoError(t, err)
	require.Len(t, families, 4)
}
