package ignition

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/butane/config/common"
	"github.com/coreos/vcontext/report"
)

// maxFaults bounds an error text: the first faults are the ones to mend.
const maxFaults = 20

// faults is everything in rep above an information, one error per entry in the file's order; err if rep is silent.
func faults(rep report.Report, err error) error {
	entries := serious(rep)
	var list []error
	for _, e := range entries[:min(len(entries), maxFaults)] {
		list = append(list, errors.New(describe(e)))
	}
	if more := len(entries) - len(list); more > 0 {
		list = append(list, fmt.Errorf("and %d more", more))
	}
	if len(list) == 0 {
		return err
	}
	return errors.Join(list...)
}

// serious drops informations and sorts the rest by place: the libraries walk maps, so their order changes.
func serious(rep report.Report) []report.Entry {
	entries := slices.DeleteFunc(rep.Entries, func(e report.Entry) bool { return e.Kind == report.Info })
	slices.SortStableFunc(entries, func(a, b report.Entry) int {
		aLine, aColumn := a.Marker.Start()
		bLine, bColumn := b.Marker.Start()
		return cmp.Or(cmp.Compare(aLine, bLine), cmp.Compare(aColumn, bColumn),
			strings.Compare(a.Context.String(), b.Context.String()))
	})
	return entries
}

// describe says where and what, as in "line 7, column 9: $.storage.files.0: unused key mod".
func describe(e report.Entry) string {
	message := e.Message
	if message == common.ErrNoFilesDir.Error() {
		// Butane's own words advise a flag of its command line.
		message = "no other file is read from here: write the content into this file (inline: or contents:) or give a URL (source:)"
	}
	if e.Context.Len() > 0 {
		message = e.Context.String() + ": " + message
	}
	if line, column := e.Marker.Start(); line > 0 {
		message = fmt.Sprintf("line %d, column %d: %s", line, column, message)
	}
	return message
}
