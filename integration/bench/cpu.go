package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc/<pid>/stat (USER_HZ, proc(5)).
const tick = 10 * time.Millisecond

// CPU is the processor time that a process and its children have used, those
// included that have ended and were waited for.
func CPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in brackets, may hold spaces; utime, stime, cutime and cstime are the 12th to 15th field behind it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 15 {
		return 0, fmt.Errorf("read /proc/%d/stat: %d fields", pid, len(fields))
	}
	var ticks int
	for _, f := range fields[11:15] {
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
		}
		ticks += n
	}
	used := time.Duration(ticks) * tick
	children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pid))
	if err != nil {
		return 0, err
	}
	for _, child := range strings.Fields(string(children)) {
		n, err := strconv.Atoi(child)
		if err != nil {
			return 0, fmt.Errorf("read the children of %d: %w", pid, err)
		}
		more, err := CPU(n)
		if os.IsNotExist(err) {
			continue // it has ended in between; its time is its parent's at the next reading
		}
		if err != nil {
			return 0, err
		}
		used += more
	}
	return used, nil
}

// accounting is where the kernel counts the processor time of groups of
// processes (cpuacct of control groups, version 1). Other than /proc, it counts
// children that a server forks and does not wait for, to the nanosecond.
const accounting = "/sys/fs/cgroup/cpuacct"

// Meter counts the processor time of a process, of what it has started since
// then, and of all that these start.
type Meter struct {
	pid   int
	group string // folder; empty where there are no groups, and CPU has to do
}

// NewMeter begins to count.
func NewMeter(pid int) (*Meter, error) {
	m := &Meter{pid: pid}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return m, nil
	}
	parent := accounting
	for line := range strings.Lines(string(own)) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 && parts[1] == "cpuacct" {
			parent = filepath.Join(accounting, parts[2])
		}
	}
	dir, err := os.MkdirTemp(parent, "nestboot-bench-")
	if err != nil {
		return m, nil // not allowed, or another version of control groups
	}
	m.group = dir
	return m, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// Exact reports whether children count that nobody waits for.
func (m *Meter) Exact() bool { return m.group != "" }

// Used is the time since the beginning, or in the life of the process where the
// meter is not exact: take differences.
func (m *Meter) Used() (time.Duration, error) {
	if m.group == "" {
		return CPU(m.pid)
	}
	usage, err := os.ReadFile(filepath.Join(m.group, "cpuacct.usage"))
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(string(usage)), 10, 64)
	return time.Duration(ns), err
}

// Close removes what the meter has made, once the processes have ended.
func (m *Meter) Close() {
	if m.group != "" {
		_ = os.Remove(m.group) // the kernel keeps it while somebody is in it
	}
}
