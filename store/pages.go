package store

import (
	"cmp"
	"slices"
	"strings"
)

// pageSize is the most entries a page holds. A change copies one page and the
// list of pages, about 27 KB with 100,000 keys; near the square root of the
// number of keys that is the least.
const pageSize = 256

// pages is a sorted list of entries that never changes: set and remove return a
// new list that shares all pages but one with the old. No page is empty.
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

func (p pages) set(e Entry) pages {
	page, index, found := p.find(e.Key)
	if page == len(p) {
		return pages{{e}}
	}
	// Clones are exact, so that a later append can't write into a shared page.
	entries := slices.Clone(p[page])
	if found {
		entries[index] = e
	} else {
		entries = slices.Insert(entries, index, e)
	}
	if len(entries) <= pageSize {
		return p.replace(page, entries)
	}
	half := len(entries) / 2
	return p.replace(page, entries[:half:half], entries[half:])
}

func (p pages) remove(key string) pages {
	page, index, found := p.find(key)
	if !found {
		return p
	}
	if len(p[page]) == 1 {
		return p.replace(page)
	}
	return p.replace(page, slices.Delete(slices.Clone(p[page]), index, index+1))
}

// replace returns a copy of p with other pages in place of one.
func (p pages) replace(page int, with ...[]Entry) pages {
	next := make(pages, 0, len(p)+1)
	next = append(next, p[:page]...)
	next = append(next, with...)
	return append(next, p[page+1:]...)
}
