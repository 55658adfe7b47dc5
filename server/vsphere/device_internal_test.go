package vsphere

import "testing"

func TestTheSerialNumberOfAVMIsItsUUID(t *testing.T) {
	for serial, want := range map[string]string{
		"VMware-42 06 65 2a 10 97 f5 cb-5c 3c 7f cb 6b 3d 3b 00\n": "4206652a-1097-f5cb-5c3c-7fcb6b3d3b00",
		"VMware-42 06":           "",
		"To be filled by O.E.M.": "",
		"":                       "",
		"VMware-zz 06 65 2a 10 97 f5 cb-5c 3c 7f cb 6b 3d 3b 00": "",
	} {
		if got := uuidOfSerial(serial); got != want {
			t.Errorf("uuidOfSerial(%q) = %q, want %q", serial, got, want)
		}
	}
}
