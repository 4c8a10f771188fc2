package driver

import (
	"context"
	"log/slog"
	"path"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-csi/holdfast/storage"
)

// intercept is what every call goes through: the error becomes a gRPC status, and
// is logged, both once. Of the request only the volume's id or name is logged:
// secrets, parameters and contexts never are.
func intercept(log *slog.Logger, observe func(string, codes.Code, time.Duration)) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		began := time.Now()
		resp, err := handle(ctx, req)
		if observe != nil {
			observe(path.Base(info.FullMethod), status.Code(toStatus(err)), time.Since(began))
		}
		if err == nil {
			log.DebugContext(ctx, "call", slog.String("op", info.FullMethod), slog.String("volume", volumeOf(req)), slog.Duration("dur", time.Since(began)))
			return resp, nil
		}
		kind := storage.KindOf(err)
		err = toStatus(err)
		log.LogAttrs(ctx, levelOf(status.Code(err)), "call failed",
			slog.String("op", info.FullMethod),
			slog.String("volume", volumeOf(req)),
			slog.String("kind", kind.String()),
			slog.String("code", status.Code(err).String()),
			slog.Duration("dur", time.Since(began)),
			slog.String("err", err.Error()))
		return nil, err
	}
}

// levelOf: an error for what nobody expected; the rest is the caller's to repeat
// or to correct.
func levelOf(c codes.Code) slog.Level {
	switch c {
	case codes.Internal, codes.Unknown, codes.DataLoss:
		return slog.LevelError
	case codes.Canceled, codes.Aborted:
		return slog.LevelInfo
	default:
		return slog.LevelWarn
	}
}

func volumeOf(req any) string {
	switch r := req.(type) {
	case interface{ GetVolumeId() string }:
		return r.GetVolumeId()
	case interface{ GetName() string }:
		return r.GetName()
	}
	return ""
}
