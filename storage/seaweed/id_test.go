package seaweed

import (
	"testing"

	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// TestOneForm: every name of the same stored bytes becomes one.
func TestOneForm(t *testing.T) {
	for _, tt := range []struct {
		c    *filerpb.FileChunk
		want string
	}{
		{&filerpb.FileChunk{FileId: "3,01637037d6"}, "3,01637037d6"},
		{&filerpb.FileChunk{FileId: "3,1637037d6"}, "3,01637037d6"},
		{&filerpb.FileChunk{FileId: "3,000001637037D6"}, "3,01637037d6"},
		{&filerpb.FileChunk{FileId: "3,01637037d6_0"}, "3,01637037d6"},
		{&filerpb.FileChunk{FileId: "3,01637037d6_2"}, "3,03637037d6"},
		{&filerpb.FileChunk{FileId: "3,ff637037d6_1"}, "3,0100637037d6"},
		{&filerpb.FileChunk{FileId: "12,ffffffffffffffff00000000"}, "12,ffffffffffffffff00000000"},
		{&filerpb.FileChunk{Fid: &filerpb.FileId{VolumeId: 3, FileKey: 1, Cookie: 0x637037d6}}, "3,01637037d6"},
		{&filerpb.FileChunk{FileId: "3,1637037d6", Fid: &filerpb.FileId{VolumeId: 3, FileKey: 1, Cookie: 0x637037d6}}, "3,01637037d6"},
		{&filerpb.FileChunk{Fid: &filerpb.FileId{VolumeId: 3, FileKey: 0x123, Cookie: 7}}, "3,012300000007"},
		{&filerpb.FileChunk{FileId: "strange"}, "strange"},
	} {
		if got := string(chunkID(tt.c)); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.c, got, tt.want)
		}
	}
	for _, bad := range []string{"", "3", ",01637037d6", "3,", "3,637037d6", "x,01637037d6", "3,zz637037d6", "3,01637037d6_x", "3,0163703zd6", "4294967296,01637037d6"} {
		if id, err := parseID(bad); err == nil {
			t.Errorf("%q: parsed as %v", bad, id)
		}
	}
}

// FuzzID: what can be parsed has one form, and that form stays.
func FuzzID(f *testing.F) {
	f.Add("3,01637037d6")
	f.Add("3,1637037d6_7")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := parseID(s)
		if err != nil {
			return
		}
		again, err := parseID(id.String())
		if err != nil || again != id {
			t.Errorf("%q: %v, then %v, %v", s, id, again, err)
		}
	})
}
