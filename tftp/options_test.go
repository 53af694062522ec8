package tftp

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestT03_Options(t *testing.T) {
	const size = 1_000_000
	tests := map[string]struct {
		options map[string]string
		largest int
		want    terms
		oack    []string // nil: none
	}{
		"none":                       {nil, 1468, terms{block: 512, window: 1}, nil},
		"ovmf probe":                 {map[string]string{"tsize": "0", "blksize": "1468", "windowsize": "4"}, 1468, terms{block: 1468, window: 4, probe: true}, []string{"blksize", "1468", "tsize", "1000000", "windowsize", "4"}},
		"ipxe":                       {map[string]string{"blksize": "1432", "tsize": "0"}, 1468, terms{block: 1432, window: 1, probe: true}, []string{"blksize", "1432", "tsize", "1000000"}},
		"blksize 0":                  {map[string]string{"blksize": "0"}, 1468, terms{block: 512, window: 1}, nil},
		"blksize 7":                  {map[string]string{"blksize": "7"}, 1468, terms{block: 512, window: 1}, nil},
		"blksize 8":                  {map[string]string{"blksize": "8"}, 1468, terms{block: 8, window: 1}, []string{"blksize", "8"}},
		"blksize above the mtu":      {map[string]string{"blksize": "8192"}, 1468, terms{block: 1468, window: 1}, []string{"blksize", "1468"}},
		"blksize 65464 on loopback":  {map[string]string{"blksize": "65464"}, 65504, terms{block: 65464, window: 1}, []string{"blksize", "65464"}},
		"blksize 65465":              {map[string]string{"blksize": "65465"}, 65504, terms{block: 65464, window: 1}, []string{"blksize", "65464"}},
		"blksize 65536":              {map[string]string{"blksize": "65536"}, 1468, terms{block: 512, window: 1}, nil},
		"blksize -1":                 {map[string]string{"blksize": "-1"}, 1468, terms{block: 512, window: 1}, nil},
		"blksize +512":               {map[string]string{"blksize": "+512"}, 1468, terms{block: 512, window: 1}, nil},
		"blksize 0x200":              {map[string]string{"blksize": "0x200"}, 1468, terms{block: 512, window: 1}, nil},
		"blksize 1_024":              {map[string]string{"blksize": "1_024"}, 1468, terms{block: 512, window: 1}, nil},
		"blksize with a space":       {map[string]string{"blksize": " 512"}, 1468, terms{block: 512, window: 1}, nil},
		"blksize empty":              {map[string]string{"blksize": ""}, 1468, terms{block: 512, window: 1}, nil},
		"windowsize 0":               {map[string]string{"windowsize": "0"}, 1468, terms{block: 512, window: 1}, nil},
		"windowsize 65535":           {map[string]string{"windowsize": "65535"}, 1468, terms{block: 512, window: 64}, []string{"windowsize", "64"}},
		"window of 256 KiB":          {map[string]string{"windowsize": "64", "blksize": "8192"}, 8968, terms{block: 8192, window: 32}, []string{"blksize", "8192", "windowsize", "32"}},
		"window of huge blocks":      {map[string]string{"windowsize": "64", "blksize": "65464"}, 65504, terms{block: 65464, window: 4}, []string{"blksize", "65464", "windowsize", "4"}},
		"timeout 0":                  {map[string]string{"timeout": "0"}, 1468, terms{block: 512, window: 1}, nil},
		"timeout 1":                  {map[string]string{"timeout": "1"}, 1468, terms{block: 512, window: 1, timeout: time.Second}, []string{"timeout", "1"}},
		"timeout 255":                {map[string]string{"timeout": "255"}, 1468, terms{block: 512, window: 1, timeout: 255 * time.Second}, []string{"timeout", "255"}},
		"timeout 256":                {map[string]string{"timeout": "256"}, 1468, terms{block: 512, window: 1}, nil},
		"tsize that is not 0":        {map[string]string{"tsize": "77"}, 1468, terms{block: 512, window: 1, probe: true}, []string{"tsize", "1000000"}},
		"tsize that is not a number": {map[string]string{"tsize": "x"}, 1468, terms{block: 512, window: 1}, nil},
		"unknown":                    {map[string]string{"multicast": "", "rollover": "0"}, 1468, terms{block: 512, window: 1}, nil},
		"blksize2":                   {map[string]string{"blksize2": "1500"}, 1468, terms{block: 1024, window: 1}, []string{"blksize2", "1024"}},
		"blksize2 above the mtu":     {map[string]string{"blksize2": "8192"}, 1468, terms{block: 1024, window: 1}, []string{"blksize2", "1024"}},
		"blksize2 8":                 {map[string]string{"blksize2": "8"}, 1468, terms{block: 8, window: 1}, []string{"blksize2", "8"}},
		"blksize2 7":                 {map[string]string{"blksize2": "7"}, 1468, terms{block: 512, window: 1}, nil},
		"blksize2 65535":             {map[string]string{"blksize2": "65535"}, 65504, terms{block: 32768, window: 1}, []string{"blksize2", "32768"}},
		"blksize2 beside blksize":    {map[string]string{"blksize2": "1024", "blksize": "1468"}, 1468, terms{block: 1468, window: 1}, []string{"blksize", "1468"}},
		"blksize2, blksize is bad":   {map[string]string{"blksize2": "1024", "blksize": "7"}, 1468, terms{block: 1024, window: 1}, []string{"blksize2", "1024"}},
		"utimeout":                   {map[string]string{"utimeout": "50000"}, 1468, terms{block: 512, window: 1, timeout: 50 * time.Millisecond}, []string{"utimeout", "50000"}},
		"utimeout least":             {map[string]string{"utimeout": "10000"}, 1468, terms{block: 512, window: 1, timeout: 10 * time.Millisecond}, []string{"utimeout", "10000"}},
		"utimeout most":              {map[string]string{"utimeout": "255000000"}, 1468, terms{block: 512, window: 1, timeout: 255 * time.Second}, []string{"utimeout", "255000000"}},
		"utimeout too short":         {map[string]string{"utimeout": "9999"}, 1468, terms{block: 512, window: 1}, nil},
		"utimeout too long":          {map[string]string{"utimeout": "255000001"}, 1468, terms{block: 512, window: 1}, nil},
		"utimeout beside timeout":    {map[string]string{"utimeout": "50000", "timeout": "3"}, 1468, terms{block: 512, window: 1, timeout: 3 * time.Second}, []string{"timeout", "3"}},
		"bad one beside a good one":  {map[string]string{"blksize": "x", "tsize": "0"}, 1468, terms{block: 512, window: 1, probe: true}, []string{"tsize", "1000000"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := negotiate(tt.options, size, tt.largest)
			if tt.oack != nil {
				tt.want.oack = packet(opOACK, tt.oack...)
			}
			require.Equal(t, tt.want, got)
			checkTerms(t, got, tt.largest)
		})
	}
}

func checkTerms(t *testing.T, x terms, largest int) {
	t.Helper()
	if x.block < minBlock || x.block > max(largest, defaultBlock) || x.window < 1 || x.window > maxWindow ||
		x.block*x.window > maxWindowBytes || x.timeout < 0 || x.timeout > 255*time.Second || len(x.oack) > 128 {
		t.Fatalf("terms out of bounds: %+v", x)
	}
}

// FuzzNegotiate offers any values of the options there are.
func FuzzNegotiate(f *testing.F) {
	f.Add("1468", "", "", "", "0", "4", int64(100_000), uint16(1468))
	f.Add("", "1500", "255", "10000", "x", "65535", int64(0), uint16(508))
	f.Fuzz(func(t *testing.T, blksize, blksize2, timeout, utimeout, tsize, windowsize string, size int64, largest uint16) {
		if size < 0 || int(largest) < defaultBlock-headersIPv6 {
			return
		}
		options := map[string]string{
			"blksize": blksize, "blksize2": blksize2, "timeout": timeout,
			"utimeout": utimeout, "tsize": tsize, "windowsize": windowsize,
		}
		checkTerms(t, negotiate(options, size, int(largest)), int(largest))
	})
}
