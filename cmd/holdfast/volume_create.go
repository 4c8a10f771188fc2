package main

import (
	"fmt"
	"path"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
	"github.com/holdfast-csi/holdfast/driver"
	"github.com/holdfast-csi/holdfast/driver/size"
	"github.com/holdfast-csi/holdfast/storage"
)

const createLong = `Make a volume: a bucket, a user whose keys open that bucket alone, and a limit
to its size.

Made again with the same name, size, access and parameters it is left as it is,
so that a script may repeat itself. Parameters are those of a StorageClass;
"holdfast parameters" says what each does.`

const createExample = `  holdfast volume create photos --size 10Gi
  holdfast volume create database --size 500Mi --access single
  holdfast volume create archive --size 1Ti --access read-only -o json
  holdfast volume create data --size 1Ti --param bucketName=data --param onDelete=retain
  holdfast volume create team --size 1Ti --param bucketName=shared --param prefix=team/data --param onDelete=retain`

func newVolumeCreate(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "create NAME --size SIZE",
		Short:   "Make a volume",
		Long:    createLong,
		Example: createExample,
		Args:    exactly("NAME"),
	}
	var (
		bytes  size.Bytes
		access string
		given  []string
	)
	cmd.Flags().Var(&bytes, "size", "capacity, such as 500Mi, 1Gi or 2T")
	cmd.Flags().StringVar(&access, "access", string(storage.Shared),
		"who may use it: shared (many nodes write), single (one node at a time) or read-only")
	cmd.Flags().StringArrayVarP(&given, "param", "p", nil, "parameter, name=value; may be repeated ("+strings.Join(driver.ParameterNames(), ", ")+")")
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "parameter" {
			name = "param"
		}
		return pflag.NormalizedName(name)
	})
	out := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if bytes == 0 {
			return fmt.Errorf("--size is missing (example: holdfast volume create %s --size 1Gi)", args[0])
		}
		params, err := parameters(given)
		if err != nil {
			return err
		}
		return a.withVolumes(func(c *volumes.Client) error {
			v, err := c.Create(cmd.Context(), args[0], int64(bytes), storage.AccessMode(access), params)
			if err != nil {
				return err
			}
			if *out == asJSON {
				return writeJSON(a.stdout, v)
			}
			_, err = fmt.Fprintf(a.stdout, "volume %s is ready: %s, %s, bucket %s\n", v.Name, size.Bytes(v.Size), v.Access, path.Join(v.Bucket, v.Prefix))
			return err
		})
	}
	return cmd
}

// parameters reads name=value. The driver judges the names.
func parameters(given []string) (map[string]string, error) {
	params := make(map[string]string, len(given))
	for _, p := range given {
		key, value, ok := strings.Cut(p, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("parameter %q: write name=value", p)
		}
		if _, twice := params[key]; twice {
			return nil, fmt.Errorf("parameter %q is given twice", key)
		}
		params[key] = value
	}
	return params, nil
}
