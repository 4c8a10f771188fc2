package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ClientsFolder is where in Out the S3 clients in Python are: boto3, and the AWS CLI
// in its bin. Debian 12 has versions that do not know AWS_ENDPOINT_URL yet; rclone,
// which no Python package has, comes from there.
const ClientsFolder = "s3-clients"

// clientVersions are pinned together, since both need one botocore.
var clientVersions = []string{"awscli==1.45.11", "boto3==1.43.11"}

// clients installs them, where they are not those of the last time.
func (b *Builder) clients(ctx context.Context) error {
	folder := filepath.Join(b.Out, ClientsFolder)
	inputs := strings.Join(clientVersions, " ")
	if upToDate(filepath.Join(folder, "bin", "aws"), folder+".inputs", inputs) {
		return nil
	}
	args := append([]string{"-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--upgrade", "--target", folder}, clientVersions...)
	cmd := exec.CommandContext(ctx, "python3", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: run deploy/dev/prepare.sh run e2e\n%s", cmd, err, out)
	}
	b.say("installed the S3 clients %s", inputs)
	return os.WriteFile(folder+".inputs", []byte(inputs), 0o644)
}
