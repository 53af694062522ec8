package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nestboot/nestboot/artifact"
)

// maxBody bounds the body of a request: a set that is limited to a thousand
// machines takes 40 kB.
const maxBody = 256 << 10

// fields is a JSON object whose values are not read yet.
type fields map[string]json.RawMessage

func readBody(w http.ResponseWriter, req *http.Request) (fields, error) {
	d := json.NewDecoder(http.MaxBytesReader(w, req.Body, maxBody))
	var f fields
	err := d.Decode(&f)
	if err == nil && f != nil {
		if _, more := d.Token(); errors.Is(more, io.EOF) {
			return f, exactNames(f)
		}
	}
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return nil, &apiError{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("the body has more than %d bytes", maxBody), Code: "body_too_large"}
	}
	return nil, &apiError{Status: http.StatusBadRequest, Message: "the body is not one JSON object", Code: "bad_json"}
}

// exactNames refuses names that encoding/json would take for a field of ours,
// but that differ from it in case: all of ours are in lower case.
func exactNames(f fields) error {
	invalid := &artifact.Invalid{}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if name != strings.ToLower(name) {
			invalid.Faults = append(invalid.Faults, artifact.Fault{Field: name, Code: artifact.CodeInvalid, Message: "is not a field"})
		}
	}
	if len(invalid.Faults) > 0 {
		return invalid
	}
	return nil
}

// decodeFields reads each field by itself, so that each fault is named with its
// field, all at once.
func decodeFields(f fields, out any) error {
	invalid := &artifact.Invalid{}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		one, err := json.Marshal(fields{name: f[name]})
		if err != nil {
			return fmt.Errorf("encode field: %w", err)
		}
		d := json.NewDecoder(bytes.NewReader(one))
		d.DisallowUnknownFields()
		if err := d.Decode(out); err != nil {
			at, message := explainField(name, err)
			invalid.Faults = append(invalid.Faults, artifact.Fault{Field: at, Code: artifact.CodeInvalid, Message: message})
		}
	}
	if len(invalid.Faults) > 0 {
		return invalid
	}
	return nil
}

// explainField says what is wrong with a field, or with one inside it.
func explainField(name string, err error) (field, message string) {
	if unknown, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		unknown = strings.Trim(unknown, `"`)
		if unknown != name {
			unknown = name + "." + unknown
		}
		return unknown, "is not a field"
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		if wrong.Field != "" {
			name = strings.TrimPrefix(wrong.Field, "Spec.") // which is embedded, and no field to clients
		}
		return name, fmt.Sprintf("a %s is not what is wanted here", wrong.Value)
	}
	if errors.As(err, new(*time.ParseError)) {
		return name, "is not a time like 2027-01-31T23:59:59Z"
	}
	return name, fmt.Sprintf("%.200s", err)
}

// unchanged refuses a body that would change another field than those named.
// For everything but expires_at, null is the same as absent.
func unchanged(f fields, given, now artifact.Spec, may ...string) error {
	was, is := asFields(now), asFields(given)
	invalid := &artifact.Invalid{}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		unset := string(f[name]) == "null" && name != "expires_at"
		if unset || slices.Contains(may, name) || reflect.DeepEqual(was[name], is[name]) {
			continue
		}
		invalid.Faults = append(invalid.Faults, artifact.Fault{
			Field: name, Code: artifact.CodeImmutable, Message: "cannot be changed: create another set, and delete this one when its machines have moved",
		})
	}
	if len(invalid.Faults) > 0 {
		return invalid
	}
	return nil
}

// asFields is a spec as generic JSON, without what is null or empty.
func asFields(s artifact.Spec) map[string]any {
	var out map[string]any
	data, err := json.Marshal(s)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil { // every field can be encoded
		return nil
	}
	maps.DeleteFunc(out, func(_ string, v any) bool {
		list, ok := v.([]any)
		return v == nil || ok && len(list) == 0
	})
	return out
}
