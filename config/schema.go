package config

import "embed"

// The schema is generated from the types, their comments and the rules by
// schema_test.go, where a test fails when the checked-in file is stale. So the
// binary carries the result and not the generator.
//
//go:embed schema.json
var schemaFile embed.FS

// Schema returns the JSON schema (draft 2020-12) of the file, for editors and
// CI. It accepts every file that Decode accepts, except that it wants each given
// key to have a value, and refuses most of what Decode refuses. The error is the
// embedded file system's.
func Schema() ([]byte, error) { return schemaFile.ReadFile("schema.json") }
