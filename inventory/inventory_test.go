package inventory

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/store"
)

var t0 = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)

func openStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func uuidOf(n int) string { return fmt.Sprintf("4c4c4544-0042-3510-8052-%012d", n) }

func request(n int) boot.Request {
	return boot.Request{
		UUID: uuidOf(n), MAC: "52:54:00:00:00:01", Serial: "S1", Arch: boot.AMD64, Platform: boot.EFI,
		Addr: netip.MustParseAddr("10.77.0.57"), Credential: boot.Credential{Kind: "set", Name: "rack1", Set: "rack1"},
	}
}

func plan(name string) boot.Plan {
	return boot.Plan{Action: boot.ActBoot, Machine: boot.Machine{Name: name}, Image: boot.Image{Name: "flatcar"}}
}

func openMachines(t *testing.T, s *store.Store) *Machines {
	t.Helper()
	m, err := OpenMachines(s, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return m
}

// written lets the register write what waits, as at a stop.
func (m *Machines) written(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.Run(ctx)
	require.Empty(t, m.pending)
}

func TestMachines(t *testing.T) {
	s := openStore(t, t.TempDir())
	m := openMachines(t, s)
	_, known := m.Get(uuidOf(1))
	require.False(t, known)
	require.NoError(t, m.Saw(request(1), plan("node1"), "b1", t0))
	rec, known := m.Get(uuidOf(1))
	require.True(t, known, "at once, not when it has been written")
	require.Equal(t, "node1", rec.Name)
	m.written(t)
	require.NoError(t, m.Saw(request(1), plan("node1b"), "b2", t0.Add(time.Hour)))
	m.Done(uuidOf(1), "b1", t0.Add(90*time.Minute))
	rec, _ = m.Get(uuidOf(1))
	require.Equal(t, StatusBooting, rec.Status, "a late report of an earlier boot changes nothing")
	m.Done(uuidOf(1), "b2", t0.Add(2*time.Hour))
	m.Done(uuidOf(9), "b2", t0)
	m.written(t)

	list, err := openMachines(t, s).List() // as after a restart
	require.NoError(t, err)
	require.Equal(t, []Record{{
		ID: 1, UUID: uuidOf(1), Name: "node1b", Status: StatusReady, MAC: "52:54:00:00:00:01", Serial: "S1",
		Arch: boot.AMD64, Platform: boot.EFI, Addr: "10.77.0.57", Set: "rack1", Credential: "set rack1", Image: "flatcar", LastBoot: "b2",
		FirstSeen: t0, LastSeen: t0.Add(2 * time.Hour),
	}}, list)
}

func TestMachinesRegisterAtOnce(t *testing.T) {
	m := openMachines(t, openStore(t, t.TempDir()))
	ctx, cancel := context.WithCancel(t.Context())
	var running, seeing sync.WaitGroup
	running.Go(func() { m.Run(ctx) })
	const n = 50
	for i := range 3 * n {
		seeing.Go(func() {
			if err := m.Saw(request(i%n), plan("n"), "b", t0); err != nil {
				t.Error(err)
			}
		})
	}
	seeing.Wait()
	cancel()
	running.Wait()
	list, err := m.List()
	require.NoError(t, err)
	ids := map[int64]bool{}
	for _, r := range list {
		require.Positive(t, r.ID)
		ids[r.ID] = true
	}
	require.Len(t, ids, n, "each machine has a number of its own, and no number is used twice")
}

func TestMachinesWaitForTheStore(t *testing.T) {
	s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Reserve: 1 << 60}) // as on a full disk
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	m := openMachines(t, s)
	require.NoError(t, m.Saw(request(1), plan("node1"), "b1", t0))
	require.ErrorIs(t, m.flush(t.Context()), store.ErrNoSpace)
	list, err := m.List()
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Zero(t, list[0].ID)
	require.Equal(t, "node1", list[0].Name)
}

func TestMachinesWriteWhoseAnswerWasLost(t *testing.T) {
	m := openMachines(t, openStore(t, t.TempDir()))
	require.NoError(t, m.Saw(request(1), plan("node1"), "b1", t0))
	lost := m.pending[uuidOf(1)]
	m.written(t)
	m.put(lost) // written, but nobody heard of it
	m.written(t)
	list, err := m.List()
	require.NoError(t, err)
	require.EqualValues(t, 1, list[0].ID, "it keeps its number")
}

// More machines than one transaction takes, new ones among known ones.
func TestManyMachinesAreWritten(t *testing.T) {
	const n = 2*writeMachines + 50
	m := openMachines(t, openStore(t, t.TempDir()))
	numbers := map[string]int64{}
	for round, known := range []int{n / 3, n} {
		for i := range known {
			require.NoError(t, m.Saw(request(i+1), plan("node"), fmt.Sprint("boot-", round), t0))
		}
		require.NoError(t, m.flush(t.Context()))
		require.Empty(t, m.pending)
		list, err := m.List()
		require.NoError(t, err)
		require.Len(t, list, known)
		seen := map[int64]bool{}
		for _, r := range list {
			require.Equal(t, fmt.Sprint("boot-", round), r.LastBoot)
			require.Positive(t, r.ID)
			require.LessOrEqual(t, r.ID, int64(known), "numbers have no gaps")
			require.False(t, seen[r.ID])
			seen[r.ID] = true
			if before := numbers[r.UUID]; before != 0 {
				require.Equal(t, before, r.ID, "for life")
			}
			numbers[r.UUID] = r.ID
		}
	}
}

func TestRegisterIsBounded(t *testing.T) {
	m := openMachines(t, openStore(t, t.TempDir()))
	require.NoError(t, m.Saw(request(1), plan("node1"), "b1", t0))
	m.count = maxMachines
	require.ErrorContains(t, m.Saw(request(2), plan("node2"), "b1", t0), "there are 100000 already")
	require.NoError(t, m.Saw(request(1), plan("node1"), "b2", t0), "a known machine goes on")
}

func TestOrganizationStaysTheSame(t *testing.T) {
	s := openStore(t, t.TempDir())
	first, err := Organization(t.Context(), s)
	require.NoError(t, err)
	_, err = boot.ParseUUID(first)
	require.NoError(t, err)
	second, err := Organization(t.Context(), s)
	require.NoError(t, err)
	require.Equal(t, first, second)
}

func TestBootsTieTheStepsOfOneMachineTogether(t *testing.T) {
	b := NewBoots()
	addr := netip.MustParseAddr("10.77.0.57")
	anon, machine, _ := b.At(addr, t0)
	require.Empty(t, machine)
	id := b.Begin(addr, uuidOf(1), "m1", t0.Add(time.Second))
	require.Equal(t, anon, id, "the machine takes over the boot that its firmware began")
	require.Equal(t, id, b.Begin(addr, uuidOf(1), "m1", t0.Add(2*time.Second)), "a machine that waits is still in the same boot")
	b.Started(addr, id)
	at, machine, mac := b.At(addr, t0.Add(3*time.Second))
	require.Equal(t, []string{id, uuidOf(1), "m1"}, []string{at, machine, mac})
	next := b.Begin(addr, uuidOf(1), "m1", t0.Add(4*time.Second))
	require.NotEqual(t, id, next, "a machine that was sent an image and asks again has started over")
	other := b.Begin(addr, uuidOf(2), "m2", t0.Add(5*time.Second))
	require.NotEqual(t, next, other, "another machine at the address is another boot")
	later, _, _ := b.At(addr, t0.Add(2*time.Hour))
	require.NotEqual(t, other, later, "an idle boot is over")
}

func TestBootsRestart(t *testing.T) {
	b := NewBoots()
	addr := netip.MustParseAddr("10.77.0.57")
	id := b.Begin(addr, uuidOf(1), "m1", t0)
	b.Restart(addr)
	same, _, _ := b.At(addr, t0)
	require.Equal(t, id, same, "before it was sent an image, firmware's next file is a step of the same boot")
	b.Started(addr, id)
	b.Restart(addr)
	next, machine, _ := b.At(addr, t0)
	require.NotEqual(t, id, next)
	require.Empty(t, machine)
}

func TestT04_BootsAreBounded(t *testing.T) {
	b := NewBoots()
	machine := netip.MustParseAddr("10.0.0.1")
	id := b.Begin(machine, uuidOf(1), "m1", t0)
	spoofed := netip.MustParseAddr("10.1.0.0")
	for range 5 * maxBoots {
		spoofed = spoofed.Next()
		b.At(spoofed, t0)
	}
	require.LessOrEqual(t, len(b.byAddr), maxBoots)
	still, who, _ := b.At(machine, t0)
	require.Equal(t, id, still, "spoofed packets push out each other, not a machine that identified itself")
	require.Equal(t, uuidOf(1), who)
}

func TestJournal(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, filepath.Join(dir, "store"))
	var log bytes.Buffer
	var counted []boot.Stage
	j, err := OpenJournal(t.Context(), s, slog.New(slog.NewTextHandler(&log, nil)), func(e boot.Event) { counted = append(counted, e.Stage) })
	require.NoError(t, err)
	addr := netip.MustParseAddr("10.77.0.57")
	j.Record(boot.Event{Stage: boot.StageTFTPRequest, Addr: addr, Name: "rack1/snponly.efi"}, t0)
	id := j.Boots.Begin(addr, uuidOf(1), "52:54:00:00:00:01", t0.Add(time.Second))
	past, next, stop := j.Follow(0)
	require.Len(t, past, 1)
	j.Record(boot.Event{Stage: boot.StageTLS, Addr: addr, Error: "EOF\nlevel=ERROR msg=forged"}, t0.Add(time.Second))
	e := <-next
	stop()
	_, open := <-next
	require.False(t, open)

	require.Equal(t, id, e.Boot)
	require.Equal(t, past[0].Boot, e.Boot, "both steps belong to one boot")
	require.Equal(t, uuidOf(1), e.Machine)
	require.Greater(t, e.ID, past[0].ID)
	require.Equal(t, []boot.Stage{boot.StageTFTPRequest, boot.StageTLS}, counted)
	require.Equal(t, 2, strings.Count(log.String(), "\n"), "one line per stage, whatever a client puts in (T34)")
	require.Contains(t, log.String(), "mac=52:54:00:00:00:01")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	j.Run(ctx) // stores what waits, then returns
	again, err := OpenJournal(t.Context(), s, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	require.Equal(t, j.Since(0), again.Since(0), "a restart forgets nothing that was stored")
	again.Record(boot.Event{Stage: boot.StageDone, Boot: id}, t0)
	events := again.Since(e.ID)
	require.Len(t, events, 1)
	require.Greater(t, events[0].ID, e.ID, "numbers ascend over a restart")
}

func TestJournalForgetsOldEvents(t *testing.T) {
	s := openStore(t, t.TempDir())
	j, err := OpenJournal(t.Context(), s, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	stored := keepEvents + trimBatch
	for n := range stored {
		j.Record(boot.Event{Stage: boot.StageDone, Boot: "b", Machine: uuidOf(1)}, t0.Add(time.Duration(n)*time.Second))
		if n%1000 == 0 || n == stored-1 {
			j.write(t.Context())
		}
	}
	j.write(t.Context())
	require.Len(t, j.Since(0), keepEvents)
	entries, err := s.List(t.Context(), eventPrefix)
	require.NoError(t, err)
	require.Len(t, entries, keepEvents)
	require.Zero(t, j.dropped)
}

func TestT04_FloodDoesNotPushBootsOutOfTheJournal(t *testing.T) {
	counted := 0
	j, err := OpenJournal(t.Context(), openStore(t, t.TempDir()), slog.New(slog.DiscardHandler), func(boot.Event) { counted++ })
	require.NoError(t, err)
	j.Record(boot.Event{Stage: boot.StageScript, Boot: "b", Machine: uuidOf(1)}, t0)
	addr := netip.MustParseAddr("10.0.0.1")
	j.Boots.Begin(addr.Next(), uuidOf(1), "m1", t0) // also from a machine's own address
	for n := range 2 * keepEvents {
		if n%2 == 0 {
			addr = addr.Next()
		}
		j.Record(boot.Event{Stage: boot.StageTFTPRequest, Addr: addr}, t0)
	}
	events := j.Since(0)
	require.Len(t, events, namelessBurst+1)
	require.Equal(t, boot.StageScript, events[0].Stage)
	require.Equal(t, 2*keepEvents+1, counted, "what is not recorded is counted")
	j.Record(boot.Event{Stage: boot.StageDone, Boot: "b", Machine: uuidOf(1)}, t0)
	require.Equal(t, boot.StageDone, j.Since(0)[namelessBurst+1].Stage, "known machines go on being recorded")
}

func TestEventsAreBounded(t *testing.T) {
	s := openStore(t, t.TempDir())
	j, err := OpenJournal(t.Context(), s, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	huge := strings.Repeat("&<\xff", 10_000)
	for range writeBatch {
		j.Record(boot.Event{Stage: boot.Stage("tls"), Boot: huge, Machine: huge, MAC: huge, Name: huge, Code: huge, Error: huge, Detail: huge}, t0)
	}
	j.write(t.Context())
	entries, err := s.List(t.Context(), eventPrefix)
	require.NoError(t, err)
	require.Len(t, entries, writeBatch, "no batch is too large for the store")
}

func TestJournalCutsOffASlowListener(t *testing.T) {
	j, err := OpenJournal(t.Context(), openStore(t, t.TempDir()), slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	_, next, stop := j.Follow(0)
	defer stop()
	for range listenerLength + 1 {
		j.Record(boot.Event{Stage: boot.StageDone, Boot: "b", Machine: uuidOf(1)}, t0)
	}
	n := 0
	for range next {
		n++
	}
	require.Equal(t, listenerLength, n, "it gets what fitted, then its channel is closed; nobody waits for it")
}
