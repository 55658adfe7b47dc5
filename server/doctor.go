package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/vsphere"
)

// employDoctor gives the planner what it looks vcenters and repositories over with.
func (s *Server) employDoctor() {
	p := s.planner
	p.Surveyor, p.Gauge, p.Remover = s.vsphere, s.repositories, s.vsphere
	p.MachineUUID, p.Slots = machineUUID(), s.config.Slots
}

// machineUUID is the SMBIOS UUID of the machine that this server runs on; ""
// where it cannot be read. In a VM it is the one that vSphere knows it by.
func machineUUID() string {
	text, err := os.ReadFile("/sys/class/dmi/id/product_uuid")
	if err != nil {
		return ""
	}
	return strings.ToLower(strings.TrimSpace(string(text)))
}

// vsphereRole is what the role is called in vSphere.
const vsphereRole = "Kura"

// VSphereRoleJSON is the role that kura's account needs at the least, for
// programs: its name, its privileges, and what each is for.
func VSphereRoleJSON() []byte {
	type privilege struct {
		ID       string   `json:"id"`
		For      string   `json:"needed_to"`
		On       string   `json:"on"`
		Parts    []string `json:"parts"`
		Optional bool     `json:"optional,omitempty"`
	}
	role := struct {
		Name       string      `json:"name"`
		Privileges []privilege `json:"privileges"`
	}{Name: vsphereRole}
	for _, p := range vsphere.Privileges() {
		role.Privileges = append(role.Privileges, privilege{p.ID, p.For, p.On, p.Parts, p.Optional})
	}
	text, err := json.MarshalIndent(role, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("encode the role: %v", err)) // plain values: it cannot fail
	}
	return append(text, '\n')
}

// VSphereRoleScript is that role as a script that makes it with govc.
func VSphereRoleScript() []byte {
	var b bytes.Buffer
	b.WriteString("#!/bin/sh\n# Makes the role that Kura needs at the least. Set GOVC_URL, GOVC_USERNAME and GOVC_PASSWORD of an\n" +
		"# administrator, run it, and give the role to Kura's account on the root folder, with propagation:\n" +
		"#   govc permissions.set -principal DOMAIN\\\\kura -role " + vsphereRole + " -propagate=true /\n" +
		"set -e\ngovc role.create " + vsphereRole + " \\\n")
	all := vsphere.Privileges()
	for i, p := range all {
		end := " \\\n"
		if i == len(all)-1 {
			end = "\n"
		}
		b.WriteString("  " + p.ID + end)
	}
	b.WriteString("\n# What each is needed to do:\n")
	for _, p := range all {
		note := strings.Join(p.Parts, ", ")
		if p.Optional {
			note += "; optional"
		}
		fmt.Fprintf(&b, "#   %s: %s (%s)\n", p.ID, p.For, note)
	}
	return b.Bytes()
}
