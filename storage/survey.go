package storage

import "context"

// surveyPage is how many names are asked for at a time.
const surveyPage = 1000

// Survey calls each for every name of a volume, one directory after the other. What
// others change meanwhile is or is not told; a directory that goes is left out.
func Survey(ctx context.Context, files Files, each func(Path, Share)) error {
	next := []Path{""}
	for len(next) > 0 {
		dir := next[len(next)-1]
		next = next[:len(next)-1]
		for after := ""; ; {
			page, err := files.List(ctx, dir, after, surveyPage)
			if Is(err, NotFound) || Is(err, NotDirectory) {
				break
			}
			if err != nil {
				return err
			}
			for _, e := range page {
				p := dir.Join(e.Name)
				each(p, e.Share())
				if e.IsDir() {
					next = append(next, p)
				}
			}
			if len(page) < surveyPage {
				break
			}
			after = page[len(page)-1].Name
		}
	}
	return nil
}

// Exceeds reports whether what a volume takes is more than most bytes. It looks no
// further than it must; with an error it has not seen everything.
func Exceeds(ctx context.Context, files Files, most int64) (bool, error) {
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	sum, linked := int64(0), map[string]bool{}
	err := Survey(ctx, files, func(_ Path, s Share) {
		if s.LinkID != "" {
			if linked[s.LinkID] {
				return
			}
			linked[s.LinkID] = true
		}
		if sum += s.Held; sum > most {
			enough()
		}
	})
	if sum > most {
		return true, nil
	}
	return false, err
}
