package boot

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTimelineGolden(t *testing.T) {
	at := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	addr := netip.MustParseAddr("10.77.0.57")
	events := []Event{
		{Time: at, Stage: StageTFTPRequest, Boot: "b1", Addr: addr, Name: "rack1/snponly.efi"},
		{Time: at.Add(300 * time.Millisecond), Stage: StageTFTPDone, Boot: "b1", Addr: addr, Name: "rack1/snponly.efi", Bytes: 284672, Duration: 300 * time.Millisecond},
		{Time: at.Add(time.Hour), Stage: StageTLS, Boot: "b2", Addr: netip.MustParseAddr("fd00:77::9"), Name: "ipxe.example.com", Code: "tls-failed", Error: "EOF"},
		{Time: at.Add(2 * time.Second), Stage: StageKernel, Boot: "b1", Addr: addr, Name: "flatcar/vmlinuz", Bytes: 50 << 20, Duration: 1500 * time.Millisecond},
		{Time: at.Add(time.Minute), Stage: StageChain, Boot: "b3", Addr: addr, Credential: "url metal1", Code: "expired", Error: "expired credential refused (expired)"},
		{Time: at.Add(3 * time.Second), Stage: StageDone, Boot: "b1", Detail: "evil \x1b[2J\nline"},
	}
	var tl Timeline
	var out bytes.Buffer
	out.WriteString(Heading() + "\n")
	for _, e := range events {
		out.WriteString(tl.Line(e) + "\n")
	}
	golden(t, "timeline.txt", out.Bytes())
}

func TestEventJSONGolden(t *testing.T) {
	e := Event{
		ID: 7, Time: time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC), Stage: StageScript, Boot: "b1", Machine: uuidA, MAC: macA,
		Addr: netip.MustParseAddr("10.77.0.57"), Name: "flatcar", Duration: time.Millisecond, Bytes: 448, Code: CodeHeld, Error: "e", Detail: "d",
	}
	got, err := json.MarshalIndent(e, "", "  ")
	require.NoError(t, err)
	golden(t, "event.json", append(got, '\n'))
	minimal, err := json.Marshal(Event{Stage: StageDone})
	require.NoError(t, err)
	require.JSONEq(t, `{"id":0,"time":"0001-01-01T00:00:00Z","stage":"done"}`, string(minimal))
}
