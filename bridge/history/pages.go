package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The file is read here without bbolt, which trusts what it finds: a page that leads back
// to itself would end the process, a wrong list of free pages would have sound ones
// overwritten. It is a sequence of pages of one size. The first two are metas, written in
// turn; the one that is sound and of the later transaction says where everything else is: a
// tree of pages whose leaves hold keys and values, and a list of free pages. Numbers are
// in the order of the machine. (bbolt 1.5: internal/common/{meta,page,bucket}.go.)
const (
	pageSize   = 4096 // on every system
	metaMagic  = 0xED0CDAED
	metaFormat = 2
	metaSize   = 64 // with the sum over what is before it, in the last 8 bytes

	pageHeader    = 16 // id uint64, flags uint16, count uint16, overflow uint32
	elementHeader = 16
	bucketHeader  = 16 // page of the root uint64, sequence uint64; in a leaf that is small enough the page follows

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	flagBucket   = 0x01 // of an element of a leaf

	maxDepth    = 32  // of the tree
	maxOverflow = 256 // pages that a leaf is longer than one; few rows of maxRow take less
)

var native = binary.NativeEndian

// meta is where things are, by one of the first two pages.
type meta struct {
	root, freelist uint64 // pages
	end            uint64 // the first page that is not in use
	tx             uint64
}

// readMeta reads one of the first two pages.
func readMeta(f io.ReaderAt, id uint64) (meta, error) {
	b := make([]byte, metaSize)
	if _, err := f.ReadAt(b, int64(id)*pageSize+pageHeader); err != nil {
		return meta{}, fmt.Errorf("page %d: %w", id, err)
	}
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	if native.Uint32(b) != metaMagic || native.Uint32(b[4:]) != metaFormat || native.Uint32(b[8:]) != pageSize || native.Uint64(b[metaSize-8:]) != sum.Sum64() {
		return meta{}, fmt.Errorf("page %d: not what it should be", id)
	}
	return meta{native.Uint64(b[16:]), native.Uint64(b[32:]), native.Uint64(b[40:]), native.Uint64(b[48:])}, nil
}

// page is a page, or the page that a small bucket is, with all that overflows it.
type page struct {
	flags, count uint16
	overflow     uint32
	b            []byte
}

// parsePage reads the header of a page. A page of a file says its own number.
func parsePage(b []byte, id uint64) (page, error) {
	if len(b) < pageHeader || native.Uint64(b) != id {
		return page{}, fmt.Errorf("page %d: not what it should be", id)
	}
	return page{native.Uint16(b[8:]), native.Uint16(b[10:]), native.Uint32(b[12:]), b}, nil
}

// readPage reads a page that overflows by at most so many pages, all before end.
func readPage(f io.ReaderAt, id, end, overflow uint64) (page, error) {
	if id < 2 || id >= end {
		return page{}, fmt.Errorf("page %d: none of them", id)
	}
	b := make([]byte, pageSize)
	if _, err := f.ReadAt(b, int64(id)*pageSize); err != nil {
		return page{}, fmt.Errorf("page %d: %w", id, err)
	}
	p, err := parsePage(b, id)
	if err != nil || p.overflow == 0 {
		return p, err
	}
	if uint64(p.overflow) > overflow || id+uint64(p.overflow) >= end {
		return page{}, fmt.Errorf("page %d: too long", id)
	}
	p.b = make([]byte, (1+int(p.overflow))*pageSize)
	if _, err := f.ReadAt(p.b, int64(id)*pageSize); err != nil {
		return page{}, fmt.Errorf("page %d: %w", id, err)
	}
	return p, nil
}

// element is one of a page: of a branch, a page and the first key in it; of a leaf, a key
// and its value.
type element struct {
	flags      uint32
	key, value []byte
	page       uint64
}

// element returns an element of a branch or leaf; ok says whether it is inside of the page.
func (p page) element(i int) (e element, ok bool) {
	at := pageHeader + elementHeader*i
	if at+elementHeader > len(p.b) {
		return e, false
	}
	b := p.b[at:]
	var pos, ksize, vsize uint32
	if p.flags == flagBranch {
		pos, ksize, e.page = native.Uint32(b), native.Uint32(b[4:]), native.Uint64(b[8:])
	} else {
		e.flags, pos, ksize, vsize = native.Uint32(b), native.Uint32(b[4:]), native.Uint32(b[8:]), native.Uint32(b[12:])
	}
	k, v, end := uint64(pos), uint64(pos)+uint64(ksize), uint64(pos)+uint64(ksize)+uint64(vsize)
	if at+int(min(k, pageSize*maxOverflow)) < pageHeader+elementHeader*int(p.count) || end > uint64(len(b)) {
		return e, false
	}
	e.key, e.value = b[k:v], b[v:end]
	return e, true
}

// bucket returns where the content of a bucket is: in a page of the file, or inside of the
// element itself.
func (e element) bucket() (root uint64, inside page, err error) {
	if len(e.value) < bucketHeader {
		return 0, page{}, fmt.Errorf("bucket %q: too short", e.key)
	}
	if root = native.Uint64(e.value); root != 0 {
		return root, page{}, nil
	}
	inside, err = parsePage(e.value[bucketHeader:], 0)
	if err == nil && (inside.flags != flagLeaf || inside.overflow != 0) {
		err = fmt.Errorf("bucket %q: not what it should be", e.key)
	}
	return 0, inside, err
}

// check reads a file of that many bytes and says whether bbolt may be trusted with it, and
// all its records are sound. ErrNewer means that it is of a newer version.
func check(f io.ReaderAt, size int64) error {
	m, err := readMeta(f, 0)
	if m1, err1 := readMeta(f, 1); err1 == nil && (err != nil || m1.tx > m.tx) {
		m, err = m1, nil
	}
	if err != nil {
		return err
	}
	if m.end < 4 || m.end > uint64(size)/pageSize {
		return fmt.Errorf("%d bytes of %d pages", size, m.end)
	}
	c := checker{f: f, end: m.end, used: make([]bool, m.end)}
	var buckets []element
	err = c.tree(m.root, 0, nil, nil, func(e element) error {
		buckets = append(buckets, e)
		return nil
	})
	if err != nil {
		return err
	}
	if len(buckets) != 1 || buckets[0].flags != flagBucket || string(buckets[0].key) != bucketName {
		return errors.New("a file of another program")
	}
	root, inside, err := buckets[0].bucket()
	if err != nil {
		return err
	}
	if root != 0 {
		err = c.tree(root, 0, nil, nil, c.record)
	} else {
		err = ordered(inside, nil, nil, c.record)
	}
	switch {
	case err != nil:
		return err
	case c.version == 0:
		return errors.New("a file without a version")
	}
	return c.freelist(m.freelist)
}

// checker checks a file.
type checker struct {
	f       io.ReaderAt
	end     uint64
	used    []bool // pages; each may be used once
	version uint32
}

// use notes that a page and those that it overflows into are used.
func (c *checker) use(id uint64, p page) error {
	for i := id; i <= id+uint64(p.overflow); i++ {
		if c.used[i] {
			return fmt.Errorf("page %d: used twice", i)
		}
		c.used[i] = true
	}
	return nil
}

// tree calls do with the elements of the leaves below a page, whose keys are not below low
// and, unless that is nil, below high.
func (c *checker) tree(id uint64, depth int, low, high []byte, do func(element) error) error {
	p, err := readPage(c.f, id, c.end, maxOverflow)
	if err == nil {
		err = c.use(id, p)
	}
	switch {
	case err != nil:
		return err
	case p.flags == flagLeaf:
		if err := ordered(p, low, high, do); err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
		return nil
	case p.flags != flagBranch || p.count == 0 || depth == maxDepth:
		return fmt.Errorf("page %d: not what it should be", id)
	}
	var children []element
	err = ordered(p, low, high, func(e element) error {
		children = append(children, e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	for i, e := range children {
		next := high
		if i+1 < len(children) {
			next = children[i+1].key
		}
		if err := c.tree(e.page, depth+1, e.key, next, do); err != nil {
			return err
		}
	}
	return nil
}

// ordered calls do with the elements of a page, whose keys must ascend, not be below low
// and, unless that is nil, be below high.
func ordered(p page, low, high []byte, do func(element) error) error {
	for i := range int(p.count) {
		e, ok := p.element(i)
		order := bytes.Compare(e.key, low)
		if !ok || len(e.key) == 0 || order < 0 || order == 0 && i > 0 || high != nil && bytes.Compare(e.key, high) >= 0 {
			return fmt.Errorf("element %d", i)
		}
		if err := do(e); err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
		low = e.key
	}
	return nil
}

// record checks a record.
func (c *checker) record(e element) error {
	if e.flags != 0 {
		return errRecord
	}
	k, payload, err := decodeRecord(e.key, e.value)
	if err != nil {
		return err
	}
	if k.kind == kindVersion {
		c.version, err = decodeVersion(payload)
	}
	return err
}

// decodeRecord takes a record apart and checks all of it.
func decodeRecord(b, value []byte) (k key, payload []byte, err error) {
	if payload, err = unseal(b, value); err != nil {
		return k, nil, err
	}
	if k, err = parseKey(b); err != nil {
		return k, nil, err
	}
	switch k.kind {
	case kindVersion:
		_, err = decodeVersion(payload)
	case kindLog:
		_, err = decodeLogState(payload)
	case kindName:
		_, err = decodeName(payload)
	case kindPosition:
		_, err = decodePosition(payload)
	case kindRow:
		_, err = decodeRow(k.log, k.id, payload)
	}
	return k, payload, err
}

// freelist checks that no free page is used.
func (c *checker) freelist(id uint64) error {
	p, err := readPage(c.f, id, c.end, c.end)
	if err == nil {
		err = c.use(id, p)
	}
	if err != nil {
		return err
	}
	count, at := uint64(p.count), pageHeader
	if count == 0xFFFF { // too many for the header
		count, at = native.Uint64(p.b[at:]), at+8
	}
	if p.flags != flagFreelist || count > uint64(len(p.b)-at)/8 {
		return fmt.Errorf("page %d: not what it should be", id)
	}
	for i := range count {
		free := native.Uint64(p.b[at+8*int(i):])
		if free < 2 || free >= c.end || c.used[free] {
			return fmt.Errorf("page %d: page %d is not free", id, free)
		}
		c.used[free] = true
	}
	return nil
}

// salvage finds the records in what is left of a file of that many bytes, in use or not:
// bbolt writes no page in its place, so what lies in a page that is not in use was written
// once. Rows never change; of the others the latest counts, which for a log is the highest
// generation. put gets each record, some rows more than once. No log is known to be without
// holes. ErrNewer means that the file is of a newer version.
func salvage(f io.ReaderAt, size int64, put func(key, payload []byte) error) error {
	logs := make(map[string]uint16)
	latest := make(map[string][]byte) // of a name or a position
	collect := func(e element) error {
		k, payload, err := decodeRecord(e.key, e.value)
		if errors.Is(err, ErrNewer) {
			return err
		}
		if err != nil {
			return nil //nolint:nilerr // it is not a record, or not sound
		}
		if k.kind == kindLog || k.kind == kindPosition || k.kind == kindRow {
			if k.kind == kindLog {
				s, _ := decodeLogState(payload) // it was checked
				k.generation = s.generation
			}
			name := string(logKey(k.serial, k.log))
			logs[name] = max(logs[name], k.generation)
		}
		switch k.kind {
		case kindRow:
			return put(e.key, payload)
		case kindName, kindPosition:
			if old := latest[string(e.key)]; old == nil || binary.BigEndian.Uint64(old) <= binary.BigEndian.Uint64(payload) {
				latest[string(e.key)] = bytes.Clone(payload)
			}
		}
		return nil
	}
	end := uint64(size+pageSize-1) / pageSize
	for id := range end {
		if err := leaves(f, id, end, collect); err != nil {
			return err
		}
	}
	for name, generation := range logs {
		if err := put([]byte(name), appendLogState(nil, logState{generation: generation})); err != nil {
			return err
		}
	}
	for name, payload := range latest {
		clear(payload[:8]) // the transactions of the new file are later
		if err := put([]byte(name), payload); err != nil {
			return err
		}
	}
	return nil
}

// leaves calls do with what look like elements of a leaf, if a page is one.
func leaves(f io.ReaderAt, id, end uint64, do func(element) error) error {
	b := make([]byte, pageSize)
	n, _ := f.ReadAt(b, int64(id)*pageSize) // what there is
	p, err := parsePage(b[:n], id)
	if err != nil || p.flags != flagLeaf {
		return nil //nolint:nilerr // then it is none
	}
	if more := min(uint64(p.overflow), maxOverflow, end-id-1); more > 0 {
		b = make([]byte, (1+more)*pageSize)
		n, _ = f.ReadAt(b, int64(id)*pageSize)
		p.b = b[:n]
	}
	return elements(p, do)
}

func elements(p page, do func(element) error) error {
	for i := range int(p.count) {
		e, ok := p.element(i)
		if !ok {
			continue
		}
		if e.flags == flagBucket && string(e.key) == bucketName {
			if _, inside, err := e.bucket(); err == nil && len(inside.b) > 0 {
				if err := elements(inside, do); err != nil {
					return err
				}
			}
			continue
		}
		if err := do(e); err != nil {
			return err
		}
	}
	return nil
}
