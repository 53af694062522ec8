package boot

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestChainScriptGolden(t *testing.T) {
	got, err := ChainScript("provider-a", "https://boot.example.com/chain/TOKEN")
	require.NoError(t, err)
	golden(t, "chain.ipxe", got)
	require.Contains(t, string(got), "?uuid=${uuid}&", "whoever hands the script on replaces it")
	require.NotContains(t, string(got), "crosscert", "a stock iPXE finds public roots by it")
}

func TestT17_ChainScriptRefusesWhatWouldAddToIt(t *testing.T) {
	for _, address := range []string{
		"", "x", "https://", "https://h/chain/SECRET\nshell", "https://h/chain/SECRET boot", "https://h/chain/SECRET${x}", "http://h\\/SECRET\x00",
	} {
		_, err := ChainScript("a", address)
		require.Error(t, err, address)
		require.NotContains(t, err.Error(), "SECRET")
	}
	got, err := ChainScript("a\nshell\\", "https://h/chain/SECRET")
	require.NoError(t, err, "a name is a comment, and cannot be more")
	require.Contains(t, string(got), "# nestboot, chain URL a?shell. This")
	require.NotContains(t, strings.Split(string(got), "\n"), "shell")
}

func TestCredentialString(t *testing.T) {
	require.Empty(t, Credential{}.String())
	require.Equal(t, "set rack1", Credential{Kind: "set", Name: "rack1", Set: "rack1"}.String())
}
