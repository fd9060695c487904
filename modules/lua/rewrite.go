package lua

import (
	"fmt"
	"strconv"

	"github.com/yuin/gopher-lua/ast"
)

// Names a script cannot write: what its operators become, so that they can be counted.
const (
	nameConcat = "\x00concat"
	nameSet    = "\x00set"
)

// Bounds of a script.
const (
	maxSource = 256 << 10 // bytes
	maxNodes  = 100_000
	maxNested = 200
	maxKey    = 1024 // of a number in a table's constructor
)

// rewriter goes through a script before it is compiled. Two operators can make one instruction take gigabytes: ".." and
// an assignment far past a table's end. Each becomes a call that counts.
type rewriter struct {
	nodes int
	err   error
}

func (w *rewriter) fail(line int, format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...))
	}
}

func (w *rewriter) enter(line, depth int) bool {
	if w.nodes++; w.nodes > maxNodes {
		w.fail(line, "more than %d parts", maxNodes)
	}
	if depth > maxNested {
		w.fail(line, "nested more than %d deep", maxNested)
	}
	return w.err == nil
}

func (w *rewriter) block(list []ast.Stmt, depth int) {
	for i := range list {
		list[i] = w.stmt(list[i], depth+1)
	}
}

func call(line int, name string, args ...ast.Expr) *ast.FuncCallExpr {
	f := &ast.IdentExpr{Value: name}
	f.SetLine(line)
	c := &ast.FuncCallExpr{Func: f, Args: args}
	c.SetLine(line)
	c.SetLastLine(line)
	return c
}

func (w *rewriter) stmt(s ast.Stmt, depth int) ast.Stmt {
	if !w.enter(s.Line(), depth) {
		return s
	}
	switch s := s.(type) {
	case *ast.AssignStmt:
		w.exprs(s.Rhs, depth)
		computed := false
		for i, l := range s.Lhs {
			s.Lhs[i] = w.expr(l, depth)
			if a, ok := l.(*ast.AttrGetExpr); ok {
				if _, name := a.Key.(*ast.StringExpr); !name {
					computed = true
				}
			}
		}
		if !computed {
			return s
		}
		if len(s.Lhs) != 1 || len(s.Rhs) != 1 {
			w.fail(s.Line(), "t[i] = x stands alone: not in an assignment of several")
			return s
		}
		a, ok := s.Lhs[0].(*ast.AttrGetExpr)
		if !ok {
			return s
		}
		out := &ast.FuncCallStmt{Expr: call(s.Line(), nameSet, a.Object, a.Key, s.Rhs[0])}
		out.SetLine(s.Line())
		out.SetLastLine(s.LastLine())
		return out
	case *ast.LocalAssignStmt:
		w.exprs(s.Exprs, depth)
	case *ast.FuncCallStmt:
		s.Expr = w.expr(s.Expr, depth)
	case *ast.DoBlockStmt:
		w.block(s.Stmts, depth)
	case *ast.WhileStmt:
		s.Condition = w.expr(s.Condition, depth)
		w.block(s.Stmts, depth)
	case *ast.RepeatStmt:
		s.Condition = w.expr(s.Condition, depth)
		w.block(s.Stmts, depth)
	case *ast.IfStmt:
		s.Condition = w.expr(s.Condition, depth)
		w.block(s.Then, depth)
		w.block(s.Else, depth)
	case *ast.NumberForStmt:
		s.Init, s.Limit = w.expr(s.Init, depth), w.expr(s.Limit, depth)
		if s.Step != nil {
			s.Step = w.expr(s.Step, depth)
		}
		w.block(s.Stmts, depth)
	case *ast.GenericForStmt:
		w.exprs(s.Exprs, depth)
		w.block(s.Stmts, depth)
	case *ast.FuncDefStmt:
		w.block(s.Func.Stmts, depth)
	case *ast.ReturnStmt:
		w.exprs(s.Exprs, depth)
	case *ast.BreakStmt, *ast.LabelStmt, *ast.GotoStmt:
	default:
		w.fail(s.Line(), "a statement of another Lua")
	}
	return s
}

func (w *rewriter) exprs(list []ast.Expr, depth int) {
	for i := range list {
		list[i] = w.expr(list[i], depth)
	}
}

func (w *rewriter) expr(e ast.Expr, depth int) ast.Expr {
	if e == nil || !w.enter(e.Line(), depth) {
		return e
	}
	depth++
	switch e := e.(type) {
	case *ast.StringConcatOpExpr:
		return call(e.Line(), nameConcat, w.expr(e.Lhs, depth), w.expr(e.Rhs, depth))
	case *ast.AttrGetExpr:
		e.Object, e.Key = w.expr(e.Object, depth), w.expr(e.Key, depth)
	case *ast.TableExpr:
		for _, f := range e.Fields {
			switch k := f.Key.(type) {
			case nil, *ast.StringExpr:
			case *ast.NumberExpr:
				if n, err := strconv.ParseFloat(k.Value, 64); err != nil || n > maxKey {
					w.fail(e.Line(), "a table is not made with key %s: at most %d", k.Value, maxKey)
				}
			default:
				w.fail(e.Line(), "a table is made with names, texts and small numbers for keys")
			}
			f.Value = w.expr(f.Value, depth)
		}
	case *ast.FuncCallExpr:
		e.Func, e.Receiver = w.expr(e.Func, depth), w.expr(e.Receiver, depth)
		w.exprs(e.Args, depth)
	case *ast.LogicalOpExpr:
		e.Lhs, e.Rhs = w.expr(e.Lhs, depth), w.expr(e.Rhs, depth)
	case *ast.RelationalOpExpr:
		e.Lhs, e.Rhs = w.expr(e.Lhs, depth), w.expr(e.Rhs, depth)
	case *ast.ArithmeticOpExpr:
		e.Lhs, e.Rhs = w.expr(e.Lhs, depth), w.expr(e.Rhs, depth)
	case *ast.UnaryMinusOpExpr:
		e.Expr = w.expr(e.Expr, depth)
	case *ast.UnaryNotOpExpr:
		e.Expr = w.expr(e.Expr, depth)
	case *ast.UnaryLenOpExpr:
		e.Expr = w.expr(e.Expr, depth)
	case *ast.FunctionExpr:
		w.block(e.Stmts, depth)
	}
	return e
}
