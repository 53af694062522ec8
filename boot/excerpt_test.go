package boot

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestT19_ExcerptsHoldNoPartOfAToken(t *testing.T) {
	for text, want := range map[string]string{
		"short": `"short"`, "exactly 12 b": `"exactly 12 b"`, "more than twelve": `"more than ..."`, "aaaaaaaaaaaaaaaaaaaaa": `"..."`, "ü\x00": `"\u00fc\x00"`,
	} {
		require.Equal(t, want, Excerpt(text, 12))
	}
	token := "Tm90IGEgc2VjcmV0LCBidXQgb2YgaXRzIGxlbmd0aCE"
	for pad := range 100 {
		got := Excerpt(strings.Repeat("/", pad)+token+"/x", 80)
		require.True(t, strings.Contains(got, token) || !strings.Contains(got, token[:1]), got)
	}
}
