package links

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkFind is what a token costs each request, among as many links as there
// may be.
func BenchmarkFind(b *testing.B) {
	w := newWorld(b)
	l := w.open()
	w.fill(l, maxLinks-2, Spec{Kind: Chain}, func(int, *record) {})
	machines := make([]string, maxMachines)
	for i := range machines {
		machines[i] = fmt.Sprintf("4c4c4544-0042-3510-8052-%012d", i)
	}
	for name, spec := range map[string]Spec{"any machine": {}, "1000 machines": {Machines: machines}} {
		spec.Kind, spec.Name = Chain, name
		link, err := l.Create(b.Context(), spec)
		require.NoError(b, err)
		token := l.Token(link).Encode()
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := l.Find(Chain, token, HTTPS, start); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("unknown", func(b *testing.B) {
		for b.Loop() {
			_, _, _ = l.Find(Chain, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", HTTPS, start)
		}
	})
}
