package tftp

import (
	"container/list"
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// Why a request gets no answer. Silence and not an ERROR: firmware that hears
// nothing asks again, firmware that hears an error gives up.
var (
	errBudget     = errors.New("too many replies to its network, or in all, stay unanswered")
	errTransfers  = errors.New("too many transfers")
	errPerAddress = errors.New("too many transfers of one address")
	errRepeated   = errors.New("request is being answered")
)

// gate admits requests: it counts transfers, keeps the pool of those whose
// client has not answered, and spends the budget of replies.
type gate struct {
	limits Limits

	mu         sync.Mutex
	budget     *budget
	transfers  int
	addresses  map[netip.Addr]int
	unanswered *list.List           // of *ticket, the oldest first
	crowds     map[netip.Prefix]int // how many of them each network has
	asked      map[question]*ticket // that wait for an answer
}

// question is a request word by word: the same one from the same port is a
// repetition by an impatient client.
type question struct {
	client netip.AddrPort
	packet string
}

// ticket is the admission of one transfer.
type ticket struct {
	gate     *gate
	question question
	cancel   context.CancelCauseFunc
	waiting  *list.Element // nil once the client has answered
}

func newGate(l Limits) *gate {
	return &gate{
		limits:     l,
		budget:     newBudget(l, time.Now()),
		addresses:  make(map[netip.Addr]int),
		unanswered: list.New(),
		crowds:     make(map[netip.Prefix]int),
		asked:      make(map[question]*ticket),
	}
}

// admit returns the context of a new transfer, which ends when the gate needs
// its place, or says why there is none. With errRepeated comes the ticket of the
// request that is repeated.
func (g *gate) admit(ctx context.Context, client netip.AddrPort, packet []byte) (context.Context, *ticket, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	q := question{client, string(packet)}
	if t := g.asked[q]; t != nil {
		return nil, t, errRepeated
	}
	switch {
	case g.transfers >= g.limits.Transfers:
		return nil, nil, errTransfers
	case g.addresses[client.Addr()] >= g.limits.PerAddress:
		return nil, nil, errPerAddress
	case !g.budget.take(client.Addr(), time.Now()):
		return nil, nil, errBudget
	}
	if g.unanswered.Len() >= g.limits.Unanswered {
		t := g.oldestOfTheCrowd()
		g.leave(t)
		t.cancel(errEvicted)
	}
	t := &ticket{gate: g, question: q}
	ctx, t.cancel = context.WithCancelCause(ctx)
	t.waiting = g.unanswered.PushBack(t)
	g.crowds[networkOf(client.Addr())]++
	g.asked[q] = t
	g.transfers++
	g.addresses[client.Addr()]++
	return ctx, t, nil
}

// oldestOfTheCrowd picks whom to drop: from the network that has the most
// waiting, so that a flood pushes out itself and not the one real machine.
func (g *gate) oldestOfTheCrowd() *ticket {
	most := 0
	for _, n := range g.crowds {
		most = max(most, n)
	}
	e := g.unanswered.Front()
	for g.crowds[networkOf(e.Value.(*ticket).question.client.Addr())] < most {
		e = e.Next()
	}
	return e.Value.(*ticket)
}

// leave takes a ticket out of the pool of the unanswered.
func (g *gate) leave(t *ticket) {
	g.unanswered.Remove(t.waiting)
	t.waiting = nil
	delete(g.asked, t.question)
	network := networkOf(t.question.client.Addr())
	g.crowds[network]--
	if g.crowds[network] == 0 {
		delete(g.crowds, network)
	}
}

// answered is called when the client has shown that it exists.
func (t *ticket) answered() {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	if t.waiting != nil {
		t.gate.leave(t)
	}
}

// release ends the admission; unanswered is the number of datagrams that were
// sent and that no one has answered.
func (t *ticket) release(unanswered int) {
	t.cancel(nil)
	g, client := t.gate, t.question.client.Addr()
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.waiting != nil {
		g.leave(t)
	}
	g.budget.give(client, repliesPerRequest-unanswered)
	g.transfers--
	g.addresses[client]--
	if g.addresses[client] == 0 {
		delete(g.addresses, client)
	}
}
