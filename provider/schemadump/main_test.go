package main

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestTheDumpHoldsWhatTheDocumentationNeeds(t *testing.T) {
	var out bytes.Buffer
	if err := dump(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	var got schemas
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	p, ok := got.Providers[shortName]
	if !ok || got.FormatVersion == "" || p.Provider == nil {
		t.Fatalf("the dump has providers %v, want %s", got.Providers, shortName)
	}
	s := p.Resources["kura_backup_schedule"]
	if s == nil || s.Block.Description == "" {
		t.Fatal("the schedule has no schema or no description")
	}
	for name, want := range map[string]string{"start_time": `"string"`, "retention_days": `"number"`, "enabled": `"bool"`, "labels": `["map","string"]`} {
		var compact bytes.Buffer
		if err := json.Compact(&compact, s.Block.Attributes[name].Type); err != nil || compact.String() != want {
			t.Errorf("type of %s is %s, %v; want %s", name, compact.String(), err, want)
		}
	}
	if n := s.Block.Attributes["monthly"].NestedType; n == nil || n.Nesting != "single" || n.Attributes["days_of_month"].Description == "" {
		t.Errorf("monthly is %+v, want a nested object", n)
	}
	if n := s.Block.Attributes["extended_retention"].NestedType; n == nil || n.Nesting != "set" {
		t.Errorf("extended_retention is %+v, want a nested set", n)
	}
	if a := p.Resources["kura_vcenter"].Block.Attributes["password_wo"]; !a.WriteOnly || !a.Sensitive {
		t.Errorf("password_wo is %+v, want write-only", a)
	}
	if i := p.Identities["kura_restore"]; !i.Attributes["id"].RequiredForImport {
		t.Errorf("identity of the restore is %+v, want an id", i)
	}
	f := p.Functions["expand_schedule"]
	if len(f.Parameters) != 3 || f.Summary == "" || f.Parameters[0].Description == "" {
		t.Fatalf("expand_schedule is %+v, want three parameters with descriptions", f)
	}
	for what, c := range map[string]struct {
		got  json.RawMessage
		want string
	}{
		"a schedule": {f.Parameters[0].Type, `"dynamic"`}, "what it gives": {f.Return, `["list","string"]`},
	} {
		var compact bytes.Buffer
		if err := json.Compact(&compact, c.got); err != nil || compact.String() != c.want {
			t.Errorf("type of %s is %s, %v; want %s", what, compact.String(), err, c.want)
		}
	}
}
