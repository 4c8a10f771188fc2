package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/holdfast-csi/holdfast/storage/cluster/wholefile"
)

// Config is what was chosen once and holds from then on.
type Config struct {
	// PortBase is the first of the ports: see package cluster for the others.
	PortBase int `json:"port_base"`
	// S3TLS has the S3 gateway speak TLS.
	S3TLS bool `json:"s3_tls,omitempty"`
}

// Config reads config.json; a missing one gives the zero Config.
func (d Dir) Config() (Config, error) {
	var c Config
	err := ReadJSON(d.ConfigFile(), &c)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, nil
	}
	return c, err
}

// SaveConfig replaces config.json.
func (d Dir) SaveConfig(c Config) error { return WriteJSON(d.ConfigFile(), c, 0o644) }

// ReadJSON reads a file of a state.
func ReadJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// WriteJSON replaces a file as a whole: readers see the old one or the new one,
// after a power cut too.
func WriteJSON(path string, v any, mode fs.FileMode) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return wholefile.Write(path, append(b, '\n'), mode, nil)
}
