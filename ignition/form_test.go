package ignition

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A form that is filled in is what rendering at length would have made.
func TestFormIsTheWholeConfig(t *testing.T) {
	for _, name := range []string{"empty-1.0.0.bu", "worker-1.0.0.bu", "worker-1.1.0.bu"} {
		t.Run(name, func(t *testing.T) {
			base, v := compile(t, name), values(t)
			rapid.Check(t, func(t *rapid.T) {
				v.Hostname = rapid.StringMatching(`[a-z0-9]{1,10}(-[A-Z0-9]{1,9})?(\.[a-z]{1,9})?`).Draw(t, "hostname")
				v.Done.Token = rapid.StringMatching(`[A-Za-z0-9._~+/-]{1,60}={0,2}`).Draw(t, "token")
				v.Done.URL = rapid.SampledFrom([]string{"https://a.example.com/done", "https://b.example.com/done"}).Draw(t, "url")
				want, err := base.whole(v)
				require.NoError(t, err)
				got, err := base.Render(v)
				require.NoError(t, err)
				require.Equal(t, string(want), string(got))
			})
		})
	}
}

// Where the base holds what marks a gap, there is no form, and all is well.
func TestGapInTheBase(t *testing.T) {
	for _, gap := range []string{nameGap, tokenGap} {
		base, err := Compile([]byte("variant: flatcar\nversion: 1.0.0\nstorage:\n  files:\n    - path: /opt/x\n      contents:\n        inline: " + gap + "\n"))
		require.NoError(t, err)
		v := values(t)
		raw, err := base.Render(v)
		require.NoError(t, err)
		want, err := base.whole(v)
		require.NoError(t, err)
		require.Equal(t, string(want), string(raw))
		require.Equal(t, 1, strings.Count(string(raw), gap))
	}
}

// Values are looked at however often the base was rendered.
func TestFormRefusesBadValues(t *testing.T) {
	base, good := compile(t, "empty-1.0.0.bu"), values(t)
	_, err := base.Render(good)
	require.NoError(t, err)
	for _, change := range []func(*Values){
		func(v *Values) { v.Hostname = `a"b` },
		func(v *Values) { v.Done.Token = `a"b` },
		func(v *Values) { v.Done.URL = "http://a.example.com/" },
		func(v *Values) { v.RootPEM = []byte("none") },
	} {
		v := good
		change(&v)
		_, err := base.Render(v)
		require.ErrorContains(t, err, "render ignition config: ")
	}
}

func BenchmarkRender(b *testing.B) {
	base, v := compile(b, "worker-1.0.0.bu"), values(b)
	for b.Loop() {
		if _, err := base.Render(v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRenderWhole(b *testing.B) {
	base, v := compile(b, "worker-1.0.0.bu"), values(b)
	for b.Loop() {
		if _, err := base.whole(v); err != nil {
			b.Fatal(err)
		}
	}
}
