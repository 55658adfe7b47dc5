package repository

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestTheFormatPageNamesEveryField: the page on the format names all fields of
// vm.json, and the names and tags around it.
func TestTheFormatPageNamesEveryField(t *testing.T) {
	text, err := os.ReadFile("../../docs/dev/image-format.md")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{manifestName, recipeName, string(markBlob), listPrefix, manifestPrefix, string(metaCompression), hashing, encryption}
	for _, tag := range []string{tagImage, tagKind, tagFormat, tagInstallation, tagParent, tagGroup, tagSchedule, tagExpires} {
		names = append(names, strings.TrimPrefix(tag, "tag:"))
	}
	names = append(names, fields(reflect.TypeFor[document]())...)
	names = append(names, fields(reflect.TypeFor[mark]())...)
	if len(names) < 50 {
		t.Fatalf("%d names were found, want all of the format", len(names))
	}
	for _, name := range names {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/dev/image-format.md does not name `%s`", name)
		}
	}
}

// fields lists the JSON names of a type and of what it holds.
func fields(of reflect.Type) (names []string) {
	for of.Kind() == reflect.Slice || of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || of.PkgPath() == "time" || !strings.Contains(of.PkgPath(), "kura") {
		return nil
	}
	for _, f := range reflect.VisibleFields(of) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			names = append(append(names, name), fields(f.Type)...)
		}
	}
	return names
}
