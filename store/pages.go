package store

import (
	"cmp"
	"slices"
	"strings"
)

// pageSize is the most entries a page holds. A change copies one page, 8 KB, and
// the list of pages, about 27 KB with 100,000 keys; changes that arrive together
// share the copy of the list.
const pageSize = 128

// pages is a sorted list of entries that never changes: a draft becomes a new
// list that shares all pages but those that were touched. No page is empty.
type pages [][]Entry

func newPages(sorted []Entry) pages {
	// Half-full pages leave room before the first split.
	return slices.Collect(slices.Chunk(sorted, pageSize/2))
}

// find returns the place of key or where it belongs: the page that would hold
// it, the index in it, and whether it is there.
func (p pages) find(key string) (page, index int, found bool) {
	page, found = slices.BinarySearchFunc(p, key, func(entries []Entry, key string) int {
		return cmp.Compare(entries[0].Key, key)
	})
	if !found && page > 0 {
		page--
	}
	if page == len(p) {
		return page, 0, false
	}
	index, found = slices.BinarySearchFunc(p[page], key, func(e Entry, key string) int {
		return cmp.Compare(e.Key, key)
	})
	return page, index, found
}

func (p pages) get(key string) (Entry, bool) {
	page, index, found := p.find(key)
	if !found {
		return Entry{}, false
	}
	return p[page][index], true
}

func (p pages) list(prefix string) []Entry {
	var found []Entry
	page, index, _ := p.find(prefix)
	for ; page < len(p); page, index = page+1, 0 {
		for _, e := range p[page][index:] {
			if !strings.HasPrefix(e.Key, prefix) {
				return found
			}
			found = append(found, e)
		}
	}
	return found
}

// draft is a list of pages that is still being changed, for several changes at
// once. The list is its own, the pages in it are not.
type draft struct{ pages pages }

func (p pages) draft() *draft { return &draft{slices.Clone(p)} }

func (d *draft) set(e Entry) {
	page, index, found := d.pages.find(e.Key)
	if page == len(d.pages) {
		d.pages = pages{{e}}
		return
	}
	// Clones are exact, so that a later append can't write into a shared page.
	entries := slices.Clone(d.pages[page])
	if found {
		entries[index] = e
	} else {
		entries = slices.Insert(entries, index, e)
	}
	if len(entries) <= pageSize {
		d.pages[page] = entries
		return
	}
	half := len(entries) / 2
	d.pages = slices.Replace(d.pages, page, page+1, entries[:half:half], entries[half:])
}

func (d *draft) remove(key string) {
	page, index, found := d.pages.find(key)
	switch {
	case !found:
	case len(d.pages[page]) == 1:
		d.pages = slices.Delete(d.pages, page, page+1)
	default:
		d.pages[page] = slices.Delete(slices.Clone(d.pages[page]), index, index+1)
	}
}
