package main

import (
	"strings"
	"testing"
)

func TestTheProgramThatServesDisksIsOneThatCanBeRun(t *testing.T) {
	for program, right := range map[string]bool{"/bin/sh": true, "sh": true, "/nowhere/serve": false, "/etc/passwd": false} {
		got, err := parsed(t, map[string]string{"KURA_NBD_COMMAND": program}, "--data", "/data")
		if err != nil || got.NBDCommand != program {
			t.Fatalf("program = %q, %v, want that of the variable", got.NBDCommand, err)
		}
		if err := got.Validate(); (err == nil) != right || !right && (!strings.Contains(err.Error(), program) || !strings.Contains(err.Error(), "nbd_command")) {
			t.Errorf("Validate() with %q = %v", program, err)
		}
	}
}
