package node

import (
	"context"
	"errors"
	"slices"
	"testing"
)

func TestWindowKeepsTheNewest(t *testing.T) {
	w := newWindow[int](4)
	for i := range 10 {
		w.add(i)
	}
	var got []int
	if err := w.each(t.Context(), false, func(i int) error { got = append(got, i); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []int{6, 7, 8, 9}; !slices.Equal(got, want) || !slices.Equal(w.snapshot(), want) {
		t.Fatalf("%v, snapshot %v, want %v", got, w.snapshot(), want)
	}
}

func TestWindowFollows(t *testing.T) {
	w := newWindow[int](4)
	w.add(0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, done := make(chan int), make(chan error)
	go func() { done <- w.each(ctx, true, func(i int) error { got <- i; return nil }) }()
	for i := range 20 {
		if v := <-got; v != i {
			t.Fatalf("%d, want %d", v, i)
		}
		w.add(i + 1)
	}
	<-got
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestWindowCountsWhatASlowFollowerLost(t *testing.T) {
	w := newWindow[int](4)
	w.add(0)
	stop := errors.New("enough")
	var got []int
	err := w.each(t.Context(), true, func(i int) error {
		got = append(got, i)
		if i == 0 { // while this one is slow, six more come
			for j := range 6 {
				w.add(j + 1)
			}
		}
		if i == 6 {
			return stop
		}
		return nil
	})
	_, _, dropped := w.stat()
	if !errors.Is(err, stop) || !slices.Equal(got, []int{0, 3, 4, 5, 6}) || dropped != 2 {
		t.Fatalf("%v, got %v, dropped %d", err, got, dropped)
	}
}
