package api

import (
	"context"
	"fmt"
	"io"

	"connectrpc.com/connect"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
)

// maxSightings bounds one answer.
const maxSightings = 10_000

func (s *service) AddIndicators(ctx context.Context, in *connect.ClientStream[apiv1.AddIndicatorsRequest]) (*apiv1.AddIndicatorsResponse, error) {
	if !in.Receive() {
		if err := in.Err(); err != nil {
			return nil, code(err)
		}
		return nil, code(fmt.Errorf("%w: it names no source", ErrInvalid))
	}
	source := in.Msg().GetSource()
	if source == nil {
		return nil, code(fmt.Errorf("%w: the first message names no source", ErrInvalid))
	}
	files := &fileReader{in: in}
	out, err := s.b.AddIndicators(ctx, source, files.next)
	if err == nil {
		err = in.Err()
	}
	return &apiv1.AddIndicatorsResponse{Source: out}, code(err)
}

// fileReader is the files of a stream, one after the other.
type fileReader struct {
	in   *connect.ClientStream[apiv1.AddIndicatorsRequest]
	rest []byte
	wait bool // the message in hand begins another file
}

// next is the next file, which is read to its end first.
func (f *fileReader) next() (io.Reader, error) {
	for !f.wait {
		if !f.in.Receive() {
			if err := f.in.Err(); err != nil {
				return nil, err
			}
			return nil, io.EOF
		}
		f.wait = f.in.Msg().GetNext()
	}
	f.wait, f.rest = false, f.in.Msg().GetPart()
	return f, nil
}

func (f *fileReader) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		if f.wait {
			return 0, io.EOF
		}
		if !f.in.Receive() {
			if err := f.in.Err(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		if f.wait = f.in.Msg().GetNext(); !f.wait {
			f.rest = f.in.Msg().GetPart()
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func (s *service) ListIndicators(ctx context.Context, _ *apiv1.ListIndicatorsRequest) (*apiv1.ListIndicatorsResponse, error) {
	out, err := s.b.Indicators(ctx)
	return out, code(err)
}

func (s *service) ListSightings(ctx context.Context, in *apiv1.ListSightingsRequest) (*apiv1.ListSightingsResponse, error) {
	limit := int(in.Limit)
	if limit == 0 {
		limit = 1000
	}
	rows, err := s.b.Sightings(ctx, min(limit, maxSightings))
	return &apiv1.ListSightingsResponse{Sightings: rows}, code(err)
}

func (s *service) LookupIndicator(ctx context.Context, in *apiv1.LookupIndicatorRequest) (*apiv1.LookupIndicatorResponse, error) {
	if in.Value == "" {
		return nil, code(fmt.Errorf("%w: there is no value to look up", ErrInvalid))
	}
	out, err := s.b.LookupIndicator(ctx, in.Kind, in.Value)
	return out, code(err)
}

func (s *service) RemoveIndicators(ctx context.Context, in *apiv1.RemoveIndicatorsRequest) (*apiv1.RemoveIndicatorsResponse, error) {
	left, err := s.b.RemoveIndicators(ctx, in.Id)
	return &apiv1.RemoveIndicatorsResponse{Total: left}, code(err)
}

func (s *service) RefreshIndicators(ctx context.Context, in *apiv1.RefreshIndicatorsRequest) (*apiv1.RefreshIndicatorsResponse, error) {
	return &apiv1.RefreshIndicatorsResponse{}, code(s.b.RefreshIndicators(ctx, in.Id))
}
